//! Merged definitions: what each kind of change on either side comes to.

use super::tests::{KEYED, KEYLESS, UNIQUE, cases, column, index, merge, row, rows_of, table, value};
use super::*;
use crate::edit::Edit;
use crate::schema::{ConstraintKind, PUBLIC_SCHEMA_OID, Schema, Sequence, TypeDefinition, UserType};
use crate::value::{DataType, Kind};

use proptest::prelude::*;

const OTHER: Oid = 20_002;

fn start() -> Root {
    let mut edit = Edit::new(Root::new(Catalog::initial("test")));
    edit.put_table(table(KEYED, "t", true, true)).unwrap();
    edit.put_table(table(KEYLESS, "k", false, false)).unwrap();
    (1..=5).for_each(|id| edit.insert(KEYED, row(&[id, 10, 20, id * 100])).unwrap());
    (1..=3).for_each(|id| edit.insert(KEYLESS, row(&[id, 1, 1, 1])).unwrap());
    edit.root().clone()
}

fn edited(root: &Root, change: impl FnOnce(&mut Edit)) -> Root {
    let mut edit = Edit::new(root.clone());
    change(&mut edit);
    edit.root().clone()
}

fn schema(edit: &Edit) -> TableSchema {
    edit.table_schema(KEYED).unwrap().as_ref().clone()
}

fn key(root: &Root, id: i32) -> Vec<u8> {
    root.table(KEYED).unwrap().row_key(&row(&[id, 0, 0, 0]))
}

fn set(edit: &mut Edit, id: i32, column: &str, v: i32) {
    let at = schema(edit).column_index(column).unwrap() as u16;
    let mut of_key = vec![Value::Null; schema(edit).columns.len()];
    of_key[0] = value(id);
    let key = edit.root().table(KEYED).unwrap().row_key(&of_key);
    assert!(edit.update_columns(KEYED, &key, &[(at, value(v))]).unwrap());
}

/// ALTER TABLE ADD COLUMN with a value for the rows that are there.
fn add_column(edit: &mut Edit, name: &str, fill: i32) {
    let mut to = schema(edit);
    to.columns.push(column(to.next_attnum, name));
    to.next_attnum += 1;
    let widen = |mut row: Row| {
        row.push(value(fill));
        Ok(row)
    };
    edit.rewrite_table(to, &mut { widen }).unwrap();
}

fn drop_column(edit: &mut Edit, name: &str) {
    let mut to = schema(edit);
    let at = to.column_index(name).unwrap();
    to.columns.remove(at);
    to.indexes.retain(|index| !index.columns.iter().any(|c| c.key == crate::schema::IndexKey::Column(at)));
    for c in to.primary_key.iter_mut().chain(&mut to.indexes).flat_map(|i| &mut i.columns) {
        if let crate::schema::IndexKey::Column(position) = &mut c.key
            && *position > at
        {
            *position -= 1;
        }
    }
    edit.rewrite_table(to, &mut |mut row| {
        row.remove(at);
        Ok(row)
    })
    .unwrap();
}

fn rename_column(edit: &mut Edit, from: &str, to: &str) {
    let mut schema = schema(edit);
    let at = schema.column_index(from).unwrap();
    schema.columns[at].name = to.into();
    edit.put_table(schema).unwrap();
}

fn widen_column(edit: &mut Edit, name: &str) {
    let mut to = schema(edit);
    let at = to.column_index(name).unwrap();
    to.columns[at].data_type = DataType { oid: 20, typmod: -1, name: "int8".into(), kind: Kind::Int8, element: None };
    edit.rewrite_table(to, &mut |mut row| {
        if let Value::Int4(v) = row[at] {
            row[at] = Value::Int8(i64::from(v));
        }
        Ok(row)
    })
    .unwrap();
}

/// Rows by column names, so that the order of columns does not count.
fn named_rows(root: &Root) -> Vec<BTreeMap<String, String>> {
    let schema = root.table(KEYED).unwrap().schema().clone();
    let named = |row: Row| schema.columns.iter().zip(row).map(|(c, v)| (c.name.clone(), format!("{v:?}"))).collect();
    rows_of(root, KEYED).into_iter().map(named).collect()
}

/// What a value says without its type, which a merge may widen.
fn number(value: &str) -> &str {
    value.trim_start_matches(|c: char| c != '(')
}

fn columns(root: &Root) -> Vec<&str> {
    root.catalog().table(KEYED).unwrap().columns.iter().map(|c| c.name.as_str()).collect()
}

#[test]
fn columns_that_each_side_added_are_both_there_though_their_numbers_are_the_same() {
    let base = start();
    let ours = edited(&base, |e| {
        add_column(e, "x", 7);
        set(e, 1, "x", 8);
        e.insert(KEYED, row(&[6, 1, 1, 6, 9])).unwrap();
    });
    let theirs = edited(&base, |e| {
        add_column(e, "y", 70);
        set(e, 1, "y", 80);
        set(e, 2, "a", 11);
    });
    let merged = merge(&base, &ours, &theirs);
    assert!(merged.is_clean(), "{merged:?}");
    assert_eq!(columns(&merged.root), ["id", "a", "b", "u", "x", "y"]);
    let rows = rows_of(&merged.root, KEYED);
    assert_eq!(rows[0], row(&[1, 10, 20, 100, 8, 80]));
    assert_eq!(rows[1], row(&[2, 11, 20, 200, 7, 70]));
    assert_eq!(rows[5], row(&[6, 1, 1, 6, 9, 0]));
    // The filling of a column in rows that its side never saw is the caller's.
    let fill = |schema: &TableSchema, at: usize, _: &[Value]| Ok(if schema.columns[at].name == "y" { value(70) } else { Value::Null });
    let options = MergeOptions { fill: Some(&fill), check: None };
    let filled = merge_roots(&base, &ours, &theirs, &options).unwrap();
    assert_eq!(rows_of(&filled.root, KEYED)[5], row(&[6, 1, 1, 6, 9, 70]));

    // Their branch goes on and is merged again: the base is where it was, its "y" has another number here.
    let later = edited(&theirs, |e| set(e, 3, "y", 90));
    let here = edited(&merged.root, |e| {
        set(e, 3, "x", 5);
        rename_column(e, "x", "z");
    });
    let again = merge(&theirs, &here, &later);
    assert!(again.is_clean(), "{again:?}");
    assert_eq!(columns(&again.root), ["id", "a", "b", "u", "z", "y"]);
    assert_eq!(rows_of(&again.root, KEYED)[2], row(&[3, 10, 20, 300, 5, 90]));
    // And theirs takes ours in: there "y" keeps the number that it has had.
    let back = merge(&theirs, &later, &again.root);
    assert!(back.is_clean() && named_rows(&back.root) == named_rows(&again.root), "{back:?}");
}

#[test]
fn a_number_that_is_another_column_on_each_side_does_not_mix_their_values() {
    let base = start();
    let ours = edited(&base, |e| add_column(e, "common", 0));
    let theirs = edited(&base, |e| {
        add_column(e, "other", 0);
        add_column(e, "common", 0);
        drop_column(e, "a");
        set(e, 1, "other", 1);
    });
    for (ours, theirs) in [(&ours, &theirs), (&theirs, &ours)] {
        let merged = merge(&base, ours, theirs);
        assert!(merged.is_clean());
        let first = &named_rows(&merged.root)[0];
        assert_eq!((first["other"].as_str(), first["common"].as_str()), ("Int4(1)", "Null"));
    }
}

#[test]
fn each_kind_of_change_merges_with_changes_of_rows() {
    let base = start();
    let theirs = edited(&base, |e| {
        set(e, 1, "a", 11);
        e.insert(KEYED, row(&[7, 1, 2, 3])).unwrap();
        e.delete(KEYED, &key(&base, 4)).unwrap();
    });
    let changes: [(&str, &dyn Fn(&mut Edit), &dyn Fn(&Row) -> Row); 6] = [
        ("rename", &|e| rename_column(e, "a", "c"), &|row| row.clone()),
        ("drop", &|e| drop_column(e, "b"), &|row| vec![row[0].clone(), row[1].clone(), row[3].clone()]),
        ("add", &|e| add_column(e, "x", 0), &|row| [&row[..], &[Value::Null]].concat()),
        ("retype", &|e| widen_column(e, "b"), &|row| {
            let mut row = row.clone();
            if let Value::Int4(v) = row[2] {
                row[2] = Value::Int8(i64::from(v));
            }
            row
        }),
        (
            "rename the table",
            &|e| {
                let renamed = TableSchema { name: "t2".into(), ..schema(e) };
                e.put_table(renamed).unwrap();
            },
            &|row| row.clone(),
        ),
        (
            "index",
            &|e| {
                let mut with = schema(e);
                with.indexes.push(index(UNIQUE + 1, "other", &[0, 1]));
                e.put_table(with).unwrap();
            },
            &|row| row.clone(),
        ),
    ];
    for (what, change, convert) in changes {
        // Alone, and beside changes of other rows, so that neither side is the base.
        for more in [false, true] {
            let ours = edited(&base, |e| {
                change(e);
                if more {
                    set(e, 2, "u", 7);
                }
            });
            let mut expected: Vec<Row> = rows_of(&theirs, KEYED);
            if more {
                expected[1][3] = value(7);
            }
            let expected: Vec<Row> = expected.iter().map(convert).collect();
            for merged in [merge(&base, &ours, &theirs), merge(&base, &theirs, &ours)] {
                assert!(merged.is_clean(), "{what}: {merged:?}");
                assert_eq!(merged.root.catalog().get(KEYED), ours.catalog().get(KEYED), "{what}");
                assert_eq!(rows_of(&merged.root, KEYED), expected, "{what}");
            }
        }
    }
}

#[test]
fn changes_of_one_definition_that_exclude_each_other_keep_ours_and_are_told() {
    let base = start();
    type Change<'a> = &'a dyn Fn(&mut Edit);
    let rename: Change<'_> = &|e| rename_column(e, "a", "c");
    let rename_else: Change<'_> = &|e| rename_column(e, "a", "d");
    let rename_into: Change<'_> = &|e| rename_column(e, "b", "c");
    let retype: Change<'_> = &|e| widen_column(e, "a");
    let drop: Change<'_> = &|e| drop_column(e, "a");
    let drop_table: Change<'_> = &|e| e.drop_object(KEYED).unwrap();
    let update: Change<'_> = &|e| set(e, 1, "b", 3);
    let add: Change<'_> = &|e| add_column(e, "x", 1);
    let add_other: Change<'_> = &|e| {
        add_column(e, "x", 1);
        let mut to = schema(e);
        to.columns[4].not_null = true;
        e.put_table(to).unwrap();
    };
    let index_on_it: Change<'_> = &|e| {
        let mut with = schema(e);
        with.indexes.push(index(UNIQUE + 1, "other", &[0, 1]));
        e.put_table(with).unwrap();
    };
    let no_key: Change<'_> = &|e| {
        let mut to = schema(e);
        to.primary_key = None;
        e.rewrite_table(to, &mut Ok).unwrap();
    };
    let cases: [(Change<'_>, Change<'_>, &str); 8] = [
        (rename, rename_else, "both sides gave column \"a\" another name"),
        (rename, rename_into, "both sides gave the name \"c\" to different columns"),
        (rename, drop, "one side changed column \"a\" and the other dropped it"),
        (retype, drop, "one side changed column \"a\" and the other dropped it"),
        (add, add_other, "both sides gave column \"x\" another rule about NULL"),
        (index_on_it, drop, "index \"other\" is on a column that the other side dropped"),
        (no_key, update, "its primary key, or the columns of a table without one, changed on one side and rows on the other"),
        (drop_table, update, "dropped on one side, and the other changed its rows"),
    ];
    for (one, other, reason) in cases {
        let (one, other) = (edited(&base, one), edited(&base, other));
        for (ours, theirs) in [(&one, &other), (&other, &one)] {
            let merged = merge(&base, ours, theirs);
            assert_eq!(merged.objects.len(), 1, "{reason}: {merged:?}");
            let conflict = &merged.objects[0];
            assert_eq!(conflict.reasons, [reason]);
            let of = |root: &Root| root.catalog().get(KEYED).cloned();
            assert_eq!((&conflict.base, &conflict.ours, &conflict.theirs), (&of(&base), &of(ours), &of(theirs)));
            assert!(merged.root.same(ours).unwrap(), "{reason}");
        }
    }
    let dropped = edited(&base, drop_table);
    let renamed = edited(&base, rename);
    assert_eq!(merge(&base, &dropped, &renamed).objects[0].reasons, ["dropped on our side and changed on theirs"]);
    assert_eq!(merge(&base, &renamed, &dropped).objects[0].reasons, ["changed on our side and dropped on theirs"]);
    // Dropped on both sides, or on one that alone touched it: no conflict.
    assert!(merge(&base, &dropped, &edited(&base, drop_table)).is_clean());
    let other = edited(&base, |e| e.insert(KEYLESS, row(&[9, 9, 9, 9])).unwrap());
    let merged = merge(&base, &other, &dropped);
    assert!(merged.is_clean() && merged.root.table(KEYED).is_none());
}

#[test]
fn a_value_changed_in_a_column_that_the_other_side_dropped_is_a_conflict_of_that_row() {
    let base = start();
    let ours = edited(&base, |e| {
        drop_column(e, "b");
        set(e, 5, "a", 1);
    });
    let theirs = edited(&base, |e| {
        set(e, 1, "b", 21);
        set(e, 2, "a", 22);
    });
    for (ours, theirs) in [(&ours, &theirs), (&theirs, &ours)] {
        let merged = merge(&base, ours, theirs);
        assert_eq!(merged.rows.len(), 1, "{merged:?}");
        assert_eq!(merged.rows[0].key, key(&base, 1));
        assert_eq!(columns(&merged.root), ["id", "a", "u"]);
        assert_eq!(rows_of(&merged.root, KEYED)[1], row(&[2, 22, 200]));
    }
    // Both sides change columns, and one of them also the values of what the other drops.
    let also = edited(&theirs, |e| drop_column(e, "a"));
    let merged = merge(&base, &ours, &also);
    assert_eq!(merged.rows.iter().map(|c| c.key.clone()).collect::<Vec<_>>(), [1, 5].map(|id| key(&base, id)), "{merged:?}");
}

#[test]
fn tables_added_on_both_sides_under_one_name_are_one_when_they_are_defined_alike() {
    let base = start();
    let side = |oid: Oid, name: &str, rows: &[i32]| {
        edited(&base, |e| {
            let mut added = table(oid, name, true, false);
            added.constraints.push(foreign_key(oid + 50, oid, &[1], &[0]));
            e.put_table(added).unwrap();
            e.put_object(sequence(oid + 60, "s", oid)).unwrap();
            rows.iter().for_each(|id| e.insert(oid, row(&[*id, 0, 0, *id])).unwrap());
        })
    };
    let (ours, theirs) = (side(30_000, "new", &[1, 2]), side(31_000, "new", &[2, 3]));
    let merged = merge(&base, &ours, &theirs);
    assert!(merged.is_clean(), "{merged:?}");
    assert_eq!(rows_of(&merged.root, 30_000), [1, 2, 3].map(|id| row(&[id, 0, 0, id])));
    assert!(merged.root.table(31_000).is_none() && merged.root.catalog().get(31_060).is_none());

    let unlike = edited(&side(31_000, "new", &[2]), |e| {
        let mut to = e.table_schema(31_000).unwrap().as_ref().clone();
        to.columns[1].not_null = true;
        e.put_table(to).unwrap();
    });
    let merged = merge(&base, &ours, &unlike);
    assert_eq!(merged.objects[0].reasons, ["both sides added it, with different definitions"]);
    assert_eq!(rows_of(&merged.root, 30_000).len(), 2);
}

fn foreign_key(oid: Oid, target: Oid, own: &[usize], there: &[usize]) -> Constraint {
    let kind = ConstraintKind::ForeignKey { table: target, columns: there.to_vec() };
    Constraint { oid, name: "fk".into(), kind, definition: "FOREIGN KEY (a) REFERENCES t(id)".into(), columns: own.to_vec() }
}

fn sequence(oid: Oid, name: &str, owner: Oid) -> CatalogObject {
    CatalogObject::Sequence(Sequence {
        oid,
        schema_oid: PUBLIC_SCHEMA_OID,
        name: name.into(),
        owner: "test".into(),
        data_type: DataType { oid: 20, typmod: -1, name: "int8".into(), kind: Kind::Int8, element: None },
        start: 1,
        increment: 1,
        min: 1,
        max: 1000,
        cache: 1,
        cycle: false,
        owned_by: Some((owner, 1)),
    })
}

#[test]
fn sequences_types_and_schemas_merge_field_by_field_and_are_kept_while_they_are_needed() {
    let seq = |name: &str, max: i64| match sequence(20_500, name, KEYED) {
        CatalogObject::Sequence(s) => CatalogObject::Sequence(Sequence { max, ..s }),
        _ => unreachable!(),
    };
    let base = edited(&start(), |e| {
        e.put_object(seq("s", 1000)).unwrap();
        e.put_object(CatalogObject::Schema(Schema { oid: 20_600, name: "app".into(), owner: "test".into(), comment: None })).unwrap();
        e.put_object(CatalogObject::Type(UserType {
            oid: 20_700,
            array_oid: 20_701,
            schema_oid: 20_600,
            name: "mood".into(),
            owner: "test".into(),
            definition: TypeDefinition::Enum(vec!["sad".into()]),
        }))
        .unwrap();
    });
    let (ours, theirs) =
        (edited(&base, |e| e.put_object(seq("s", 5)).unwrap()), edited(&base, |e| e.put_object(seq("renamed", 1000)).unwrap()));
    let merged = merge(&base, &ours, &theirs);
    assert!(merged.is_clean());
    assert_eq!(merged.root.catalog().get(20_500).map(|o| (**o).clone()), Some(seq("renamed", 5)));
    let theirs = edited(&base, |e| e.put_object(seq("s", 6)).unwrap());
    assert_eq!(merge(&base, &ours, &theirs).objects[0].reasons, ["both sides changed its max"]);

    // They drop a type and its schema; we have begun to use the type's arrays.
    let theirs = edited(&base, |e| {
        e.drop_object(20_700).unwrap();
        e.drop_object(20_600).unwrap();
    });
    let ours = edited(&base, |e| {
        let mut added = table(OTHER, "moods", true, false);
        added.columns[1].data_type.oid = 20_701;
        e.put_table(added).unwrap();
    });
    let merged = merge(&base, &ours, &theirs);
    assert!(merged.root.same(&ours).unwrap(), "{merged:?}");
    assert_eq!(merged.objects.iter().map(|o| o.oid).collect::<Vec<_>>(), [20_600, 20_700]);
    // The other way round it is their table that cannot come.
    let merged = merge(&base, &theirs, &ours);
    assert!(merged.root.same(&theirs).unwrap());
    assert_eq!(merged.objects[0].reasons, ["needs an object that our side dropped"]);
}

#[test]
fn a_name_that_each_side_gave_to_another_object_stays_with_ours() {
    let base = start();
    let ours = edited(&base, |e| e.put_table(TableSchema { name: "n".into(), ..schema(e) }).unwrap());
    let theirs = edited(&base, |e| {
        e.put_table(TableSchema { name: "n".into(), ..e.table_schema(KEYLESS).unwrap().as_ref().clone() }).unwrap();
        e.insert(KEYLESS, row(&[9, 9, 9, 9])).unwrap();
    });
    let merged = merge(&base, &ours, &theirs);
    assert!(merged.root.same(&ours).unwrap());
    assert_eq!((merged.objects[0].oid, &merged.objects[0].reasons[0][..]), (KEYLESS, "the name \"n\" is taken by \"n\""));
}

#[test]
fn rows_that_break_constraints_because_of_the_other_side_are_listed() {
    let base = edited(&start(), |e| {
        let mut child = table(OTHER, "child", true, false);
        child.constraints.push(foreign_key(OTHER + 50, KEYED, &[1], &[0]));
        child.constraints.push(Constraint {
            oid: OTHER + 51,
            name: "positive".into(),
            kind: ConstraintKind::Check { expression: "(b > a)".into() },
            definition: "CHECK ((b > a))".into(),
            columns: vec![1, 2],
        });
        e.put_table(child).unwrap();
        e.insert(OTHER, row(&[1, 1, 100, 0])).unwrap();
    });
    let check = |schema: &TableSchema, _: &Constraint, row: &[Value]| {
        let at = |name: &str| if let Value::Int4(v) = row[schema.column_index(name).unwrap()] { Some(v) } else { None };
        Ok(at("a").zip(at("b")).is_none_or(|(a, b)| b > a))
    };
    let options = MergeOptions { fill: None, check: Some(&check) };
    let child = |root: &Root, id: i32| root.table(OTHER).unwrap().row_key(&row(&[id, 0, 0, 0]));
    let found = |ours: &Root, theirs: &Root| -> Vec<(Vec<u8>, ViolationKind)> {
        let merged = merge_roots(&base, ours, theirs, &options).unwrap();
        assert!(merged.rows.is_empty() && merged.objects.is_empty());
        merged.violations.into_iter().map(|v| (v.key, v.kind)).collect()
    };
    let both = |one: &Root, other: &Root| {
        let violations = found(one, other);
        assert_eq!(violations, found(other, one));
        violations
    };

    // One side refers to a row that the other deletes.
    let refers = edited(&base, |e| e.insert(OTHER, row(&[2, 5, 100, 0])).unwrap());
    let deletes = edited(&base, |e| drop(e.delete(KEYED, &key(&base, 5)).unwrap()));
    let missing = ViolationKind::ForeignKey { constraint: OTHER + 50 };
    assert_eq!(both(&refers, &deletes), [(child(&base, 2), missing)]);
    let other = edited(&base, |e| drop(e.delete(KEYED, &key(&base, 4)).unwrap()));
    assert_eq!(both(&refers, &other), []);
    // A NULL refers to nothing; a column before the one referred to is dropped.
    let none = edited(&base, |e| e.insert(OTHER, row(&[3, 0, 100, 0])).unwrap());
    assert_eq!(both(&none, &edited(&deletes, |e| drop_column(e, "a"))), []);

    // One side makes a column NOT NULL, the other brings a NULL.
    let strict = edited(&base, |e| {
        let mut to = schema(e);
        to.columns[2].not_null = true;
        e.put_table(to).unwrap();
    });
    let null = edited(&base, |e| set(e, 2, "b", 0));
    assert_eq!(both(&strict, &null), [(key(&base, 2), ViolationKind::NotNull { column: 2 })]);

    // Each cell is right on its side and the row is not.
    let (a, b) = (
        edited(&base, |e| assert!(e.update_columns(OTHER, &child(&base, 1), &[(2, value(4))]).unwrap())),
        edited(&base, |e| assert!(e.update_columns(OTHER, &child(&base, 1), &[(1, value(5))]).unwrap())),
    );
    assert_eq!(both(&a, &b), [(child(&base, 1), ViolationKind::Check { constraint: OTHER + 51 })]);
}

#[test]
fn foreign_keys_follow_the_columns_that_they_refer_to() {
    let mut child = table(OTHER, "child", true, false);
    child.constraints.push(foreign_key(OTHER + 50, KEYED, &[1], &[3]));
    let base = edited(&start(), |e| e.put_table(child.clone()).unwrap());
    // Our side drops a column before "u", and moves the reference with it.
    let ours = edited(&base, |e| {
        drop_column(e, "b");
        let mut moved = child.clone();
        moved.constraints[0] = foreign_key(OTHER + 50, KEYED, &[1], &[2]);
        e.put_table(moved).unwrap();
    });
    let theirs = edited(&base, |e| {
        let mut with = e.table_schema(OTHER).unwrap().as_ref().clone();
        with.comment = Some("changed".into());
        e.put_table(with).unwrap();
        drop_column(e, "a");
        let mut moved = e.table_schema(OTHER).unwrap().as_ref().clone();
        moved.constraints[0] = foreign_key(OTHER + 50, KEYED, &[1], &[2]);
        e.put_table(moved).unwrap();
    });
    let merged = merge(&base, &ours, &theirs);
    assert!(merged.is_clean(), "{merged:?}");
    assert_eq!(columns(&merged.root), ["id", "u"]);
    let placed = &merged.root.catalog().table(OTHER).unwrap().constraints[0];
    assert_eq!(placed.kind, ConstraintKind::ForeignKey { table: KEYED, columns: vec![1] });
    // A reference to what the other side dropped keeps the referring table ours.
    let refers = edited(&base, |e| {
        let mut with = child.clone();
        with.constraints.push(Constraint { name: "fk2".into(), ..foreign_key(OTHER + 51, KEYED, &[2], &[2]) });
        e.put_table(with).unwrap();
    });
    let without = edited(&base, |e| drop_column(e, "b"));
    let merged = merge(&base, &without, &refers);
    assert_eq!(merged.objects[0].reasons, ["constraint \"fk2\" refers to a column that the other side dropped"]);
}

#[test]
fn a_new_unique_index_that_the_other_sides_rows_break_keeps_the_table_ours() {
    let base = start();
    let ours = edited(&base, |e| {
        let mut with = schema(e);
        with.indexes.push(index(UNIQUE + 1, "other", &[1]));
        (2..=5).for_each(|id| set(e, id, "a", id));
        e.put_table(with).unwrap();
    });
    let theirs = edited(&base, |e| e.insert(KEYED, row(&[8, 10, 1, 1])).unwrap());
    let merged = merge(&base, &ours, &theirs);
    // The index is ours, so it is their row that breaks it.
    assert_eq!(merged.violations.len(), 1);
    assert_eq!(merged.violations[0].kind, ViolationKind::Unique { index: UNIQUE + 1, other_key: key(&base, 1) });
    let merged = merge(&base, &theirs, &ours);
    assert!(merged.objects[0].reasons[0].starts_with("unique index \"other\""), "{merged:?}");
    assert!(merged.root.same(&theirs).unwrap());
}

#[derive(Clone, Debug)]
enum Change {
    Add(u8),
    Drop(usize),
    Rename(usize, u8),
    Widen(usize),
    Set(i32, usize, i32),
    Insert(i32),
    Delete(i32),
}

fn changes() -> impl Strategy<Value = Vec<Change>> {
    let change = prop_oneof![
        (0..4u8).prop_map(Change::Add),
        (1..5usize).prop_map(Change::Drop),
        (1..5usize, 0..6u8).prop_map(|(at, name)| Change::Rename(at, name)),
        (1..5usize).prop_map(Change::Widen),
        (1..8i32, 1..5usize, 1..4i32).prop_map(|(id, at, v)| Change::Set(id, at, v)),
        (1..8i32).prop_map(Change::Insert),
        (1..8i32).prop_map(Change::Delete),
    ];
    prop::collection::vec(change, 0..6)
}

fn apply(edit: &mut Edit, change: &Change) {
    let to = schema(edit);
    let taken = |name: &str| to.column_index(name).is_some();
    match *change {
        Change::Add(n) if !taken(&format!("n{n}")) => add_column(edit, &format!("n{n}"), 0),
        Change::Drop(at) if at < to.columns.len() => drop_column(edit, &to.columns[at].name),
        Change::Rename(at, n) if at < to.columns.len() && !taken(&format!("n{n}")) => {
            rename_column(edit, &to.columns[at].name, &format!("n{n}"));
        }
        Change::Widen(at) if at < to.columns.len() && to.columns[at].data_type.kind == Kind::Int4 => {
            widen_column(edit, &to.columns[at].name);
        }
        Change::Set(id, at, v) if at < to.columns.len() => {
            let mut row = vec![Value::Null; to.columns.len()];
            row[0] = value(id);
            let key = edit.root().table(KEYED).unwrap().row_key(&row);
            let v = if to.columns[at].data_type.kind == Kind::Int8 { Value::Int8(v.into()) } else { value(v) };
            // A unique key may refuse it.
            drop(edit.update_columns(KEYED, &key, &[(at as u16, v)]));
        }
        Change::Insert(id) | Change::Delete(id) => {
            let mut row = vec![Value::Null; to.columns.len()];
            row[0] = value(id);
            let key = edit.root().table(KEYED).unwrap().row_key(&row);
            match change {
                Change::Insert(_) => drop(edit.insert(KEYED, row)),
                _ => drop(edit.delete(KEYED, &key)),
            }
        }
        _ => {}
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(cases()))]

    #[test]
    fn definitions_merge_alike_from_either_side(ours in changes(), theirs in changes(), more in changes()) {
        let base = start();
        let ours = edited(&base, |e| ours.iter().for_each(|c| apply(e, c)));
        let theirs = edited(&base, |e| theirs.iter().for_each(|c| apply(e, c)));
        let (one, other) = (merge(&base, &ours, &theirs), merge(&base, &theirs, &ours));
        let reasons = |merge: &Merge| merge.objects.iter().map(|o| o.oid).collect::<Vec<_>>();
        if one.violations.is_empty() && other.violations.is_empty() {
            prop_assert_eq!(reasons(&one), reasons(&other));
        }
        if one.is_clean() && other.is_clean() {
            prop_assert_eq!(named_rows(&one.root), named_rows(&other.root));
            // What has been merged is merged: both sides are ancestors of the result, and taking one in again changes nothing.
            for side in [&ours, &theirs] {
                let again = merge(side, &one.root, side);
                prop_assert!(again.is_clean() && again.root.same(&one.root).unwrap());
            }
            // Their branch goes on from where it was, and what it sets arrives in the column that it was set in.
            let later = edited(&theirs, |e| more.iter().filter(|c| matches!(c, Change::Set(..))).for_each(|c| apply(e, c)));
            let twice = merge(&theirs, &one.root, &later);
            if twice.is_clean() {
                let (arrived, was) = (named_rows(&twice.root), named_rows(&theirs));
                for (row, old) in named_rows(&later).iter().zip(&was) {
                    let there = arrived.iter().find(|there| there["id"] == row["id"]);
                    let set = row.iter().filter(|(name, value)| old[*name] != **value);
                    // Under another name where our side renamed the column.
                    for (name, value) in set.filter(|(name, _)| there.is_none_or(|there| there.contains_key(*name))) {
                        prop_assert_eq!(there.map(|there| number(&there[name])), Some(number(value)), "{}", name);
                    }
                }
            }
        }
        let alone = merge(&base, &ours, &base);
        prop_assert!(alone.is_clean() && alone.root.same(&ours).unwrap());
        let into = merge(&base, &base, &ours);
        prop_assert!(into.is_clean() && into.root.same(&ours).unwrap());
    }
}
