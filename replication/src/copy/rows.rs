//! Rows from COPY's formats.
//!
//! | binary format | bytes |
//! |---|---|
//! | signature | `PGCOPY\n`, ff, `\r\n`, 00 |
//! | flags | 4; none is known that a reader may not ignore but bit 16, which no server since version 12 sets |
//! | extension of the header | 4 for its size, and as many |
//! | per row | number of fields (2), then each field's size (4; -1: NULL) and bytes |
//! | end | -1 in place of a number of fields |
//!
//! A message holds whole rows; the binary header comes with the first.

use strandline_storage::value::{Row, TextSettings};
use strandline_storage::{DataType, Kind, Value};

use crate::apply::{Mapping, SourceRelation, Target};
use crate::catalog::RemoteTypes;

const SIGNATURE: &[u8; 11] = b"PGCOPY\n\xff\r\n\0";

/// Flags that say that a reader must know more than we do (and the one for oids, which went with version 12).
const CRITICAL_FLAGS: u32 = 0xffff_0000;

/// What the values of a row are sent as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    Text,
    Binary,
}

/// Types whose binary form says less than their text, or something else: `"char"` (a byte that need not be UTF-8), xml (its declaration is rewritten), and
/// vectors and pseudo-types.
const TEXT_ONLY: [u32; 6] = [18, 22, 30, 142, 705, 2275];

/// The first oid of a type that is not built in.
const FIRST_NORMAL_OID: u32 = 16384;

impl Format {
    /// Binary where every value's binary form gives exactly the value that its text gives: where the column here has the type that it has there.
    pub(crate) fn of(relation: &SourceRelation, mapping: &Mapping, types: &RemoteTypes) -> Format {
        let mut columns = relation.columns.iter().zip(&mapping.targets).filter_map(|(column, target)| Some((column, target.as_ref()?)));
        let is_binary = columns.all(|(column, target)| {
            let local = &target.data_type;
            let base = types.base_of(column.type_oid);
            match local.kind {
                Kind::Enum => types.is_enum(base),
                _ => DataType::builtin(base, -1).is_some_and(|remote| {
                    // A domain's values are kept as those of what it is over.
                    let is_domain =
                        base != column.type_oid && local.oid >= FIRST_NORMAL_OID && !matches!(local.kind, Kind::Other | Kind::Array);
                    let is_same = local.oid == base || is_domain;
                    is_same && remote.kind == local.kind && has_same_binary(&remote) && has_same_binary(local)
                }),
            }
        });
        if is_binary { Format::Binary } else { Format::Text }
    }

    /// The option of `COPY`.
    pub(crate) fn option(self) -> &'static str {
        match self {
            Format::Text => "",
            Format::Binary => " (FORMAT binary)",
        }
    }
}

fn has_same_binary(data_type: &DataType) -> bool {
    if TEXT_ONLY.contains(&data_type.oid) || data_type.name.starts_with("reg") {
        return false;
    }
    match &data_type.element {
        Some(element) => data_type.has_binary() && has_same_binary(element),
        None => data_type.has_binary(),
    }
}

/// Decodes the rows of one table or a part of it.
pub(crate) struct Decoder<'a> {
    mapping: &'a Mapping,
    settings: TextSettings,
    format: Format,
    /// Those of the mapping's targets that are sent.
    targets: Vec<&'a Target>,
    template: Row,
    row: Row,
    plain: Vec<u8>,
    state: BinaryState,
}

/// Where in the binary format we are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum BinaryState {
    Header,
    Rows,
    End,
}

/// Why a row cannot be had; values are not in it.
pub(crate) type Refusal = String;

impl<'a> Decoder<'a> {
    /// # Errors
    /// No row can be inserted into the table.
    pub(crate) fn new(mapping: &'a Mapping, settings: TextSettings, format: Format) -> Result<Self, Refusal> {
        let targets = mapping.targets.iter().flatten().collect();
        let template = mapping.new_row()?;
        Ok(Decoder { mapping, settings, format, targets, row: template.clone(), template, plain: Vec::new(), state: BinaryState::Header })
    }

    /// Decodes a message and hands its rows on. Returns how many they were. A row may be taken away or left where it is.
    /// # Errors
    /// What `take` says, or that the bytes are not rows of this table.
    pub(crate) fn decode<E: From<Refusal>>(&mut self, message: &[u8], mut take: impl FnMut(&mut Row) -> Result<(), E>) -> Result<u64, E> {
        let mut rest = message;
        let mut count = 0;
        if self.format == Format::Binary && self.state == BinaryState::Header {
            skip_header(&mut rest).ok_or_else(|| "the binary format's header is not one".to_owned())?;
            self.state = BinaryState::Rows;
        }
        while !rest.is_empty() {
            // What is not sent keeps what the template says, unless the last row had it computed.
            if self.row.len() != self.template.len() || self.mapping.completes() {
                self.row.clone_from(&self.template);
            }
            match self.format {
                Format::Text => {
                    let end = rest.iter().position(|byte| *byte == b'\n').ok_or_else(|| "a row without its end".to_owned())?;
                    self.text_row(&rest[..end])?;
                    rest = &rest[end + 1..];
                }
                Format::Binary => {
                    if !self.binary_row(&mut rest)? {
                        break;
                    }
                }
            }
            self.mapping.complete_copied(&mut self.row)?;
            self.mapping.check_not_null(&self.row)?;
            take(&mut self.row)?;
            count += 1;
        }
        Ok(count)
    }

    /// To be called when the primary says that the copy is complete.
    /// # Errors
    /// It is not.
    pub(crate) fn finish(&self) -> Result<(), Refusal> {
        match (self.format, self.state) {
            (Format::Text, _) | (Format::Binary, BinaryState::End) => Ok(()),
            (Format::Binary, _) => Err("the rows end without the binary format's trailer".into()),
        }
    }

    fn text_row(&mut self, line: &[u8]) -> Result<(), Refusal> {
        // A row without columns is an empty line.
        if self.targets.is_empty() {
            return if line.is_empty() { Ok(()) } else { Err("a row with too many columns".into()) };
        }
        let mut fields = line.split(|byte| *byte == b'\t');
        for target in &self.targets {
            let field = fields.next().ok_or("a row with too few columns")?;
            if field == b"\\N" {
                self.row[target.position] = Value::Null;
                continue;
            }
            let bytes = if field.contains(&b'\\') {
                unescape(field, &mut self.plain)?;
                &self.plain
            } else {
                field
            };
            let text = std::str::from_utf8(bytes).map_err(|_| self.mapping.in_column(target, "the value is not valid UTF-8".into()))?;
            self.row[target.position] = target.data_type.parse(text, &self.settings).map_err(|_| self.invalid(target, "value"))?;
        }
        if fields.next().is_some() { Err("a row with too many columns".into()) } else { Ok(()) }
    }

    /// `false` at the end.
    fn binary_row(&mut self, rest: &mut &[u8]) -> Result<bool, Refusal> {
        const SHORT: &str = "a row of the binary format that ends early";
        if self.state == BinaryState::End {
            return Err("rows behind the binary format's trailer".into());
        }
        let count = i16::from_be_bytes(take(rest).ok_or(SHORT)?);
        if count == -1 {
            self.state = BinaryState::End;
            return if rest.is_empty() { Ok(false) } else { Err("rows behind the binary format's trailer".into()) };
        }
        if usize::try_from(count) != Ok(self.targets.len()) {
            return Err(format!("a row of the binary format with {count} columns instead of {}", self.targets.len()));
        }
        for target in &self.targets {
            let size = i32::from_be_bytes(take(rest).ok_or(SHORT)?);
            if size == -1 {
                self.row[target.position] = Value::Null;
                continue;
            }
            let size = usize::try_from(size).map_err(|_| SHORT)?;
            let (bytes, after) = rest.split_at_checked(size).ok_or(SHORT)?;
            *rest = after;
            let slot = &mut self.row[target.position];
            target.data_type.read_binary(bytes, slot).map_err(|_| self.invalid(target, "binary value"))?;
        }
        Ok(true)
    }

    fn invalid(&self, target: &Target, what: &str) -> Refusal {
        // The store's texts quote the input; a log must not hold values.
        self.mapping.in_column(target, format!("the primary's {what} is not valid for type {} here", target.data_type.sql_name()))
    }
}

fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (head, tail) = bytes.split_first_chunk::<N>()?;
    *bytes = tail;
    Some(*head)
}

fn skip_header(rest: &mut &[u8]) -> Option<()> {
    *rest = rest.strip_prefix(SIGNATURE)?;
    if u32::from_be_bytes(take(rest)?) & CRITICAL_FLAGS != 0 {
        return None;
    }
    let extension = usize::try_from(i32::from_be_bytes(take(rest)?)).ok()?;
    *rest = rest.split_at_checked(extension)?.1;
    Some(())
}

/// Takes COPY's backslash sequences out.
fn unescape(field: &[u8], out: &mut Vec<u8>) -> Result<(), Refusal> {
    out.clear();
    let mut bytes = field.iter().copied();
    while let Some(byte) = bytes.next() {
        if byte != b'\\' {
            out.push(byte);
            continue;
        }
        match bytes.next() {
            Some(b'b') => out.push(8),
            Some(b'f') => out.push(12),
            Some(b'n') => out.push(b'\n'),
            Some(b'r') => out.push(b'\r'),
            Some(b't') => out.push(b'\t'),
            Some(b'v') => out.push(11),
            Some(other) => out.push(other),
            None => return Err("a value that ends with a backslash".into()),
        }
    }
    Ok(())
}

#[cfg(any(test, fuzzing))]
pub(crate) mod samples {
    use std::sync::Arc;

    use strandline_storage::TableSchema;
    use strandline_storage::schema::{Column, PUBLIC_SCHEMA_OID};

    use super::*;
    use crate::apply::SourceColumn;
    use crate::pgoutput::ReplicaIdentity;

    /// One of every kind of type.
    pub(super) const TYPES: [u32; 24] =
        [16, 17, 20, 21, 23, 25, 700, 701, 790, 829, 869, 1007, 1009, 1015, 1042, 1082, 1083, 1114, 1184, 1186, 1231, 1562, 1700, 2950];
    /// Json, jsonb, ranges, multiranges and their arrays.
    pub(super) const MORE_TYPES: [u32; 7] = [114, 3802, 3906, 3926, 4532, 3807, 3907];

    pub(super) const HEADER: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";

    /// Decodes bytes as a message of copied rows: the first one chooses the type of the columns, its highest bit the format, the next whether the
    /// binary format's header is among the bytes.
    #[cfg(fuzzing)]
    pub(crate) fn decode_any(bytes: &[u8]) {
        let Some((choice, rest)) = bytes.split_first() else { return };
        let types: Vec<u32> = TYPES.iter().chain(&MORE_TYPES).copied().collect();
        let columns = [types[usize::from(choice & 0x3f) % types.len()]; 2];
        let (_, mapping) = mapped(&columns, &columns);
        let format = if choice & 0x80 == 0 { Format::Binary } else { Format::Text };
        let Ok(mut decoder) = Decoder::new(&mapping, TextSettings::default(), format) else { return };
        let message = if choice & 0xc0 == 0 { [HEADER, rest].concat() } else { rest.to_vec() };
        let _ = decoder.decode::<Refusal>(&message, |row| {
            assert_eq!(row.len(), columns.len());
            Ok(())
        });
        let _ = decoder.finish();
    }

    /// A table with these columns (types' oids there and here), the first of which is NOT NULL.
    pub(super) fn mapped(there: &[u32], here: &[u32]) -> (SourceRelation, Mapping) {
        let name = |at: usize| format!("c{at}");
        let column = |(at, oid): (usize, &u32)| Column {
            name: name(at),
            attnum: at as i16 + 1,
            data_type: DataType::builtin(*oid, -1).unwrap(),
            not_null: at == 0,
            default: None,
            identity: None,
            generated: None,
            collation: None,
            comment: None,
        };
        let schema = TableSchema {
            oid: 20_000,
            schema_oid: PUBLIC_SCHEMA_OID,
            name: "t".into(),
            owner: "test".into(),
            columns: here.iter().enumerate().map(column).collect(),
            next_attnum: here.len() as i16 + 1,
            primary_key: None,
            indexes: Vec::new(),
            constraints: Vec::new(),
            merged_columns: Vec::new(),
            comment: None,
        };
        let source = |(at, oid): (usize, &u32)| SourceColumn { key: false, name: name(at), type_oid: *oid, typmod: -1 };
        let relation = SourceRelation {
            oid: 1,
            schema: "public".into(),
            name: "t".into(),
            identity: ReplicaIdentity::Nothing,
            columns: there.iter().enumerate().map(source).collect(),
        };
        let mapping = Mapping::new(&relation, &Arc::new(schema), &TextSettings::default());
        (relation, mapping)
    }
}

#[cfg(test)]
mod tests {
    use super::samples::{HEADER, MORE_TYPES, TYPES, mapped};
    use super::*;

    fn decode(mapping: &Mapping, format: Format, messages: &[&[u8]]) -> Result<Vec<Row>, Refusal> {
        let mut decoder = Decoder::new(mapping, TextSettings::default(), format)?;
        let mut rows = Vec::new();
        for message in messages {
            // Every second row is left where it is.
            decoder.decode::<Refusal>(message, |row| {
                rows.push(if rows.len() % 2 == 0 { std::mem::take(row) } else { row.clone() });
                Ok(())
            })?;
        }
        decoder.finish()?;
        Ok(rows)
    }

    const ROW: &[u8] = b"\0\x02\0\0\0\x04\0\0\0\x07\0\0\0\x02ab";
    const END: &[u8] = b"\xff\xff";

    #[test]
    fn both_formats_give_the_same_rows() {
        let (relation, mapping) = mapped(&[23, 25], &[23, 25]);
        assert_eq!(Format::of(&relation, &mapping, &RemoteTypes::default()), Format::Binary);
        let expected =
            [vec![Value::Int4(7), Value::bytes("ab")], vec![Value::Int4(7), Value::Null], vec![Value::Int4(7), Value::bytes("ab")]];
        assert_eq!(decode(&mapping, Format::Text, &[b"7\tab\n", b"7\t\\N\n7\tab\n"]).unwrap(), expected);
        let null = b"\0\x02\0\0\0\x04\0\0\0\x07\xff\xff\xff\xff";
        assert_eq!(decode(&mapping, Format::Binary, &[&[HEADER, ROW].concat(), null, ROW, END]).unwrap(), expected);
        assert_eq!(decode(&mapping, Format::Binary, &[&[HEADER, ROW, null, ROW, END].concat()]).unwrap(), expected);
        assert_eq!(decode(&mapping, Format::Binary, &[&[HEADER, END].concat()]).unwrap(), [[]; 0]);
        assert_eq!(decode(&mapping, Format::Text, &[]).unwrap(), [[]; 0]);
    }

    #[test]
    fn binary_is_taken_only_where_it_means_the_same() {
        let format = |there: &[u32], here: &[u32]| {
            let (relation, mapping) = mapped(there, here);
            Format::of(&relation, &mapping, &RemoteTypes::default())
        };
        assert_eq!(format(&[23, 1700, 1184, 3802, 1007, 3906], &[23, 1700, 1184, 3802, 1007, 3906]), Format::Binary);
        // Other types here, of the same width, too; then types whose binary form is another thing, or none that is known here.
        for (there, here) in [
            (23, 20),
            (1082, 23),
            (23, 1082),
            (25, 1043),
            (18, 18),
            (142, 142),
            (22, 22),
            (600, 600),
            (4451, 4451),
            (2205, 2205),
            (1002, 1002),
        ] {
            assert_eq!(format(&[23, there], &[23, here]), Format::Text, "{there} as {here}");
        }
        // What has no place here does not matter.
        assert_eq!(format(&[23, 600], &[23]), Format::Binary);
    }

    #[test]
    fn damaged_bytes_are_refused_and_quote_no_value() {
        let (_, mapping) = mapped(&[23, 25], &[23, 25]);
        let whole = [HEADER, ROW, END].concat();
        for size in 0..whole.len() {
            // Without a message there is no header either.
            assert!(decode(&mapping, Format::Binary, &[&whole[..size]]).is_err(), "{size}");
        }
        for (what, bytes) in [
            ("signature", [b"PGCOPY\n\xff\r\r\0\0\0\0\0\0\0\0\0", ROW, END].concat()),
            ("critical flag", [b"PGCOPY\n\xff\r\n\0\0\x01\0\0\0\0\0\0", ROW, END].concat()),
            ("extension", [b"PGCOPY\n\xff\r\n\0\0\0\0\0\x7f\xff\xff\xff", ROW, END].concat()),
            ("too many columns", [HEADER, b"\0\x03\0\0\0\x04\0\0\0\x07\0\0\0\x02ab\xff\xff\xff\xff", END].concat()),
            ("negative count", [HEADER, b"\xff\xfe", END].concat()),
            ("negative size", [HEADER, b"\0\x02\xff\xff\xff\xfe", END].concat()),
            ("wide int", [HEADER, b"\0\x02\0\0\0\x08\0\0\0\0\0\0\0\x07\0\0\0\0", END].concat()),
            ("not UTF-8", [HEADER, b"\0\x02\0\0\0\x04\0\0\0\x07\0\0\0\x01\xff", END].concat()),
            ("null in NOT NULL", [HEADER, b"\0\x02\xff\xff\xff\xff\0\0\0\0", END].concat()),
            ("behind the end", [HEADER, END, ROW].concat()),
        ] {
            let error = decode(&mapping, Format::Binary, &[&bytes]).unwrap_err();
            assert!(!error.contains("ab"), "{what}: {error}");
        }
        assert!(decode(&mapping, Format::Binary, &[HEADER, END, ROW]).is_err());
        for line in [&b"7\tab"[..], b"7\n", b"7\ta\tb\n", b"secret\tab\n", b"\\N\tab\n", b"7\ta\\\n", b"7\t\xff\n"] {
            let error = decode(&mapping, Format::Text, &[line]).unwrap_err();
            assert!(!error.contains("secret"), "{error}");
        }
        let (_, none) = mapped(&[], &[]);
        assert_eq!(decode(&none, Format::Text, &[b"\n\n"]).unwrap().len(), 2);
        assert_eq!(decode(&none, Format::Binary, &[&[HEADER, b"\0\0\0\0", END].concat()]).unwrap().len(), 2);
        assert!(decode(&none, Format::Text, &[b"x\n"]).is_err());
    }

    proptest::proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig { cases: 512, ..Default::default() })]

        #[test]
        fn no_bytes_panic_the_decoder(
            bytes: Vec<u8>,
            damage in proptest::collection::vec((0usize..200, proptest::prelude::any::<u8>()), 0..6),
        ) {
            let types: Vec<u32> = [23].iter().chain(&TYPES).chain(&MORE_TYPES).copied().collect();
            let (_, mapping) = mapped(&types, &types);
            let nulls = [vec![0, types.len() as u8, 0, 0, 0, 4, 0, 0, 0, 7], vec![0xff; 4 * (types.len() - 1)]].concat();
            let fields: Vec<u8> = types.iter().flat_map(|_| [&[0, 0, 0, 8][..], &[0, 1, 0, 0, 0, 0, 0, 0]].concat()).collect();
            let row = [vec![0, types.len() as u8], fields].concat();
            for whole in [[HEADER, &nulls, END].concat(), [HEADER, &row, END].concat(), [HEADER, &bytes].concat(), bytes.clone()] {
                let mut damaged = whole;
                for (at, byte) in &damage {
                    if let Some(slot) = damaged.get_mut(*at) {
                        *slot = *byte;
                    }
                }
                for format in [Format::Binary, Format::Text] {
                    let _ = decode(&mapping, format, &[&damaged]);
                }
            }
        }
    }

    #[test]
    fn escapes_of_copy_are_taken_out() {
        let mut out = Vec::new();
        unescape(br"a\tb\\n\n\v", &mut out).unwrap();
        assert_eq!(out, b"a\tb\\n\n\x0b");
        assert!(unescape(br"a\", &mut out).is_err());
    }
}
