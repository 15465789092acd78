//! PostgreSQL 15's built-in catalog: types, functions, operators, casts, aggregates, operator classes and so on.
//!
//! The `.tsv` files beside this one were written by `sql/scripts/export-catalog` from a PostgreSQL 15: COPY's text format with
//! the column names first. They are parsed once, on first use (about 6,000 rows). `own_functions.tsv` has the functions that
//! only Strandline has, in the shape of `pg_proc.tsv`, with oids from [`crate::bound::OWN_FUNCTION_OID`].
//!
//! The binder resolves against this data, the executor finds implementations by its oids, and pg_catalog shows it.

mod row;

use std::collections::HashMap;
use std::sync::LazyLock;

pub use row::{
    AccessMethodRow, AggregateRow, AmopRow, AmprocRow, ArgMode, CastRow, CollationRow, DescriptionRow, LanguageRow, NamespaceRow,
    OperatorClassRow, OperatorFamilyRow, OperatorRow, ProcRow, RangeRow, TypeRow,
};

use crate::types::Oid;
use row::{FromRow, read};

/// The oid of schema `pg_catalog`.
pub const PG_CATALOG_OID: Oid = 11;
/// btree's oid in pg_am.
pub const BTREE_OID: Oid = 403;
/// hash's oid in pg_am.
pub const HASH_OID: Oid = 405;

/// All tables with their indexes.
pub struct CatalogData {
    pub types: Vec<TypeRow>,
    pub procs: Vec<ProcRow>,
    pub operators: Vec<OperatorRow>,
    pub casts: Vec<CastRow>,
    pub aggregates: Vec<AggregateRow>,
    pub access_methods: Vec<AccessMethodRow>,
    pub operator_families: Vec<OperatorFamilyRow>,
    pub operator_classes: Vec<OperatorClassRow>,
    pub amops: Vec<AmopRow>,
    pub amprocs: Vec<AmprocRow>,
    pub collations: Vec<CollationRow>,
    pub namespaces: Vec<NamespaceRow>,
    pub ranges: Vec<RangeRow>,
    pub languages: Vec<LanguageRow>,
    pub descriptions: Vec<DescriptionRow>,
    type_by_oid: HashMap<Oid, usize>,
    type_by_name: HashMap<&'static str, usize>,
    proc_by_oid: HashMap<Oid, usize>,
    procs_by_name: HashMap<&'static str, Vec<usize>>,
    operator_by_oid: HashMap<Oid, usize>,
    operators_by_name: HashMap<&'static str, Vec<usize>>,
    cast_by_types: HashMap<(Oid, Oid), usize>,
    aggregate_by_proc: HashMap<Oid, usize>,
    default_class: HashMap<(Oid, Oid), usize>,
    amop_by_strategy: HashMap<(Oid, Oid, Oid, i16), Oid>,
}

static CATALOG: LazyLock<CatalogData> = LazyLock::new(CatalogData::load);

/// The built-in catalog.
pub fn catalog() -> &'static CatalogData {
    &CATALOG
}

fn by_oid<T>(rows: &[T], oid: impl Fn(&T) -> Oid) -> HashMap<Oid, usize> {
    rows.iter().enumerate().map(|(i, row)| (oid(row), i)).collect()
}

fn by_name<T>(rows: &[T], name: impl Fn(&T) -> &'static str) -> HashMap<&'static str, Vec<usize>> {
    let mut map: HashMap<&'static str, Vec<usize>> = HashMap::new();
    for (i, row) in rows.iter().enumerate() {
        map.entry(name(row)).or_default().push(i);
    }
    map
}

impl CatalogData {
    fn load() -> CatalogData {
        let types = TypeRow::read_all(include_str!("pg_type.tsv"));
        let mut procs = ProcRow::read_all(include_str!("pg_proc.tsv"));
        procs.extend(ProcRow::read_all(include_str!("own_functions.tsv")));
        let operators = OperatorRow::read_all(include_str!("pg_operator.tsv"));
        let casts = CastRow::read_all(include_str!("pg_cast.tsv"));
        let aggregates = AggregateRow::read_all(include_str!("pg_aggregate.tsv"));
        let operator_classes = OperatorClassRow::read_all(include_str!("pg_opclass.tsv"));
        let amops = AmopRow::read_all(include_str!("pg_amop.tsv"));
        CatalogData {
            type_by_oid: by_oid(&types, |r| r.oid),
            type_by_name: types.iter().enumerate().map(|(i, r)| (r.name, i)).collect(),
            proc_by_oid: by_oid(&procs, |r| r.oid),
            procs_by_name: by_name(&procs, |r| r.name),
            operator_by_oid: by_oid(&operators, |r| r.oid),
            operators_by_name: by_name(&operators, |r| r.name),
            cast_by_types: casts.iter().enumerate().map(|(i, r)| ((r.source, r.target), i)).collect(),
            aggregate_by_proc: by_oid(&aggregates, |r| r.proc),
            default_class: operator_classes
                .iter()
                .enumerate()
                .filter(|(_, r)| r.is_default)
                .map(|(i, r)| ((r.method, r.input_type), i))
                .collect(),
            amop_by_strategy: amops.iter().map(|r| ((r.family, r.left, r.right, r.strategy), r.operator)).collect(),
            access_methods: read(include_str!("pg_am.tsv")),
            operator_families: read(include_str!("pg_opfamily.tsv")),
            amprocs: read(include_str!("pg_amproc.tsv")),
            collations: read(include_str!("pg_collation.tsv")),
            namespaces: read(include_str!("pg_namespace.tsv")),
            ranges: read(include_str!("pg_range.tsv")),
            languages: read(include_str!("pg_language.tsv")),
            descriptions: read(include_str!("pg_description.tsv")),
            types,
            procs,
            operators,
            casts,
            aggregates,
            operator_classes,
            amops,
        }
    }

    pub fn type_by_oid(&self, oid: Oid) -> Option<&TypeRow> {
        self.type_by_oid.get(&oid).map(|&i| &self.types[i])
    }

    /// By `typname`: `int4`, `_text`.
    pub fn type_by_name(&self, name: &str) -> Option<&TypeRow> {
        self.type_by_name.get(name).map(|&i| &self.types[i])
    }

    pub fn proc_by_oid(&self, oid: Oid) -> Option<&ProcRow> {
        self.proc_by_oid.get(&oid).map(|&i| &self.procs[i])
    }

    /// All overloads.
    pub fn procs_by_name(&self, name: &str) -> impl Iterator<Item = &ProcRow> {
        self.procs_by_name.get(name).into_iter().flatten().map(|&i| &self.procs[i])
    }

    pub fn operator_by_oid(&self, oid: Oid) -> Option<&OperatorRow> {
        self.operator_by_oid.get(&oid).map(|&i| &self.operators[i])
    }

    pub fn operators_by_name(&self, name: &str) -> impl Iterator<Item = &OperatorRow> {
        self.operators_by_name.get(name).into_iter().flatten().map(|&i| &self.operators[i])
    }

    pub fn cast(&self, source: Oid, target: Oid) -> Option<&CastRow> {
        self.cast_by_types.get(&(source, target)).map(|&i| &self.casts[i])
    }

    pub fn aggregate(&self, proc: Oid) -> Option<&AggregateRow> {
        self.aggregate_by_proc.get(&proc).map(|&i| &self.aggregates[i])
    }

    /// The default operator class of an access method for exactly this input type.
    pub fn default_operator_class(&self, method: Oid, input_type: Oid) -> Option<&OperatorClassRow> {
        self.default_class.get(&(method, input_type)).map(|&i| &self.operator_classes[i])
    }

    /// The operator of a family with this strategy number (btree: 1 `<`, 2 `<=`, 3 `=`, 4 `>=`, 5 `>`; hash: 1 `=`).
    pub fn family_operator(&self, family: Oid, left: Oid, right: Oid, strategy: i16) -> Option<&OperatorRow> {
        self.amop_by_strategy.get(&(family, left, right, strategy)).and_then(|&oid| self.operator_by_oid(oid))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_table_has_its_rows_and_references_resolve() {
        let c = catalog();
        assert_eq!(c.type_by_oid(23).map(|t| t.name), Some("int4"));
        assert_eq!(c.type_by_name("_text").map(|t| t.oid), Some(1009));
        for op in &c.operators {
            assert!(op.proc == 0 || c.proc_by_oid(op.proc).is_some(), "operator {} has an unknown function", op.oid);
        }
        for proc in &c.procs {
            assert!(proc.arg_types.len() >= proc.default_count as usize, "{}", proc.name);
            for &ty in &proc.arg_types {
                assert!(c.type_by_oid(ty).is_some(), "{} takes an unknown type {ty}", proc.name);
            }
        }
        for cast in &c.casts {
            assert!(cast.function == 0 || c.proc_by_oid(cast.function).is_some());
        }
    }

    #[test]
    fn names_of_all_arguments_keep_their_places() {
        let c = catalog();
        let make_interval = c.procs_by_name("make_interval").next().unwrap();
        assert_eq!(make_interval.arg_names[0], "years");
        assert_eq!(make_interval.default_count, 7);
        let checkout = c.procs_by_name("dolt_checkout").next().unwrap();
        assert_eq!(checkout.out_columns(), vec![("status", 20), ("message", 25)]);
    }

    #[test]
    fn default_operator_classes_give_comparisons() {
        let c = catalog();
        let class = c.default_operator_class(BTREE_OID, 23).unwrap();
        assert_eq!(c.family_operator(class.family, 23, 23, 1).map(|o| o.name), Some("<"));
    }
}
