//! PostgreSQL 15's built-in types: oid, name, array type and kind, and their names in SQL.

use std::sync::Arc;

use crate::value::{DataType, Kind};

/// One built-in type.
struct Builtin {
    oid: u32,
    name: &'static str,
    array_oid: u32,
    kind: Kind,
    /// What SQL calls it, where that is not `name`.
    sql_name: &'static str,
}

const fn t(oid: u32, name: &'static str, array_oid: u32, kind: Kind) -> Builtin {
    Builtin { oid, name, array_oid, kind, sql_name: name }
}

const fn s(oid: u32, name: &'static str, array_oid: u32, kind: Kind, sql_name: &'static str) -> Builtin {
    Builtin { oid, name, array_oid, kind, sql_name }
}

/// Types that a column can have, by oid.
const BUILTINS: &[Builtin] = &[
    s(16, "bool", 1000, Kind::Bool, "boolean"),
    t(17, "bytea", 1001, Kind::Bytea),
    s(18, "char", 1002, Kind::Text, "\"char\""),
    t(19, "name", 1003, Kind::Text),
    s(20, "int8", 1016, Kind::Int8, "bigint"),
    s(21, "int2", 1005, Kind::Int2, "smallint"),
    t(22, "int2vector", 1006, Kind::Other),
    s(23, "int4", 1007, Kind::Int4, "integer"),
    t(24, "regproc", 1008, Kind::Oid),
    t(25, "text", 1009, Kind::Text),
    t(26, "oid", 1028, Kind::Oid),
    t(27, "tid", 1010, Kind::Other),
    t(28, "xid", 1011, Kind::Oid),
    t(29, "cid", 1012, Kind::Oid),
    t(30, "oidvector", 1013, Kind::Other),
    t(114, "json", 199, Kind::Json),
    t(142, "xml", 143, Kind::Text),
    t(194, "pg_node_tree", 0, Kind::Other),
    t(600, "point", 1017, Kind::Other),
    t(601, "lseg", 1018, Kind::Other),
    t(602, "path", 1019, Kind::Other),
    t(603, "box", 1020, Kind::Other),
    t(604, "polygon", 1027, Kind::Other),
    t(628, "line", 629, Kind::Other),
    t(650, "cidr", 651, Kind::Other),
    s(700, "float4", 1021, Kind::Float4, "real"),
    s(701, "float8", 1022, Kind::Float8, "double precision"),
    t(718, "circle", 719, Kind::Other),
    t(774, "macaddr8", 775, Kind::Other),
    t(790, "money", 791, Kind::Money),
    t(829, "macaddr", 1040, Kind::Other),
    t(869, "inet", 1041, Kind::Other),
    t(1033, "aclitem", 1034, Kind::Other),
    s(1042, "bpchar", 1014, Kind::Bpchar, "character"),
    s(1043, "varchar", 1015, Kind::Text, "character varying"),
    t(1082, "date", 1182, Kind::Date),
    s(1083, "time", 1183, Kind::Time, "time without time zone"),
    s(1114, "timestamp", 1115, Kind::Timestamp, "timestamp without time zone"),
    s(1184, "timestamptz", 1185, Kind::Timestamptz, "timestamp with time zone"),
    t(1186, "interval", 1187, Kind::Interval),
    s(1266, "timetz", 1270, Kind::Timetz, "time with time zone"),
    t(1560, "bit", 1561, Kind::Other),
    s(1562, "varbit", 1563, Kind::Other, "bit varying"),
    t(1700, "numeric", 1231, Kind::Numeric),
    t(1790, "refcursor", 2201, Kind::Text),
    t(2202, "regprocedure", 2207, Kind::Oid),
    t(2203, "regoper", 2208, Kind::Oid),
    t(2204, "regoperator", 2209, Kind::Oid),
    t(2205, "regclass", 2210, Kind::Oid),
    t(2206, "regtype", 2211, Kind::Oid),
    t(2950, "uuid", 2951, Kind::Uuid),
    t(2970, "txid_snapshot", 2949, Kind::Other),
    t(3220, "pg_lsn", 3221, Kind::Lsn),
    t(3361, "pg_ndistinct", 0, Kind::Other),
    t(3402, "pg_dependencies", 0, Kind::Other),
    t(3614, "tsvector", 3643, Kind::Other),
    t(3615, "tsquery", 3645, Kind::Other),
    t(3642, "gtsvector", 3644, Kind::Other),
    t(3734, "regconfig", 3735, Kind::Oid),
    t(3769, "regdictionary", 3770, Kind::Oid),
    t(3802, "jsonb", 3807, Kind::Jsonb),
    t(3904, "int4range", 3905, Kind::Other),
    t(3906, "numrange", 3907, Kind::Other),
    t(3908, "tsrange", 3909, Kind::Other),
    t(3910, "tstzrange", 3911, Kind::Other),
    t(3912, "daterange", 3913, Kind::Other),
    t(3926, "int8range", 3927, Kind::Other),
    t(4072, "jsonpath", 4073, Kind::Other),
    t(4089, "regnamespace", 4090, Kind::Oid),
    t(4096, "regrole", 4097, Kind::Oid),
    t(4191, "regcollation", 4192, Kind::Oid),
    t(4451, "int4multirange", 6150, Kind::Other),
    t(4532, "nummultirange", 6151, Kind::Other),
    t(4533, "tsmultirange", 6152, Kind::Other),
    t(4534, "tstzmultirange", 6153, Kind::Other),
    t(4535, "datemultirange", 6155, Kind::Other),
    t(4536, "int8multirange", 6157, Kind::Other),
    t(4600, "pg_brin_bloom_summary", 0, Kind::Other),
    t(4601, "pg_brin_minmax_multi_summary", 0, Kind::Other),
    t(5017, "pg_mcv_list", 0, Kind::Other),
    t(5038, "pg_snapshot", 5039, Kind::Other),
    t(5069, "xid8", 271, Kind::Other),
];

/// Types that values pass through without ever being a column's: known by oid, not by name.
const TRANSIENT: &[Builtin] = &[
    t(705, "unknown", 0, Kind::Text),
    t(2249, "record", 2287, Kind::Other),
    t(2275, "cstring", 1263, Kind::Text),
    t(2278, "void", 0, Kind::Text),
];

/// Spellings of SQL's grammar that are neither `pg_type.typname` nor what `format_type` prints.
const SPELLINGS: &[(&str, &str)] = &[
    ("int", "int4"),
    ("decimal", "numeric"),
    ("dec", "numeric"),
    ("float", "float8"),
    ("char varying", "varchar"),
    ("national character", "bpchar"),
    ("national char", "bpchar"),
    ("nchar", "bpchar"),
    ("national character varying", "varchar"),
];

const INTERVAL_FULL_RANGE: i32 = 0x7FFF;
const INTERVAL_FULL_PRECISION: i32 = 0xFFFF;

/// The field masks of an interval's modifier and their names.
const INTERVAL_RANGES: &[(i32, &str)] = &[
    (1 << 2, " year"),
    (1 << 1, " month"),
    (1 << 3, " day"),
    (1 << 10, " hour"),
    (1 << 11, " minute"),
    (1 << 12, " second"),
    (1 << 2 | 1 << 1, " year to month"),
    (1 << 3 | 1 << 10, " day to hour"),
    (1 << 3 | 1 << 10 | 1 << 11, " day to minute"),
    (1 << 3 | 1 << 10 | 1 << 11 | 1 << 12, " day to second"),
    (1 << 10 | 1 << 11, " hour to minute"),
    (1 << 10 | 1 << 11 | 1 << 12, " hour to second"),
    (1 << 11 | 1 << 12, " minute to second"),
];

fn find(oid: u32) -> Option<&'static Builtin> {
    match BUILTINS.binary_search_by_key(&oid, |b| b.oid) {
        Ok(i) => BUILTINS.get(i).filter(|b| b.kind != Kind::Array),
        Err(_) => TRANSIENT.iter().find(|b| b.oid == oid),
    }
}

impl DataType {
    /// The built-in type with this oid, arrays included, when PostgreSQL 15 has it. An array's modifier is its element's.
    pub fn builtin(oid: u32, typmod: i32) -> Option<DataType> {
        if let Some(b) = find(oid) {
            return Some(DataType { oid, typmod, name: b.name.into(), kind: b.kind, element: None });
        }
        let element = BUILTINS.iter().chain(TRANSIENT).find(|b| b.array_oid == oid && oid != 0)?;
        let element = DataType { oid: element.oid, typmod, name: element.name.into(), kind: element.kind, element: None };
        Some(DataType { oid, typmod, name: format!("_{}", element.name).into(), kind: Kind::Array, element: Some(Arc::new(element)) })
    }

    /// The oid of the array type of the built-in type `oid`.
    pub fn builtin_array_oid(oid: u32) -> Option<u32> {
        find(oid).map(|b| b.array_oid).filter(|o| *o != 0)
    }

    /// The array type with this type as its element. `array_oid` is for types that are not built in.
    pub fn array_of(self, array_oid: u32) -> DataType {
        let oid = if array_oid != 0 { array_oid } else { Self::builtin_array_oid(self.oid).unwrap_or(0) };
        let name: Arc<str> = match self.name.rsplit_once('.') {
            Some((schema, name)) => format!("{schema}._{name}").into(),
            None => format!("_{}", self.name).into(),
        };
        DataType { oid, typmod: self.typmod, name, kind: Kind::Array, element: Some(Arc::new(self)) }
    }

    /// The built-in type with this `typname` or SQL name: `int4`, `_int4`, `integer`, `timestamp(3) with time zone`,
    /// `numeric(10,2)`, `integer[]`, `interval day to second(3)`. Names are compared without regard to case.
    pub fn by_name(name: &str) -> Option<DataType> {
        let lower = name.trim().to_ascii_lowercase();
        let mut name = lower.as_str();
        name = name.strip_prefix("pg_catalog.").unwrap_or(name);
        if let Some(element) = name.strip_suffix("[]") {
            let element = Self::by_name(element.trim_end())?;
            return match element.kind {
                // PostgreSQL has one array type for any number of dimensions.
                Kind::Array => Some(element),
                _ => Self::builtin(Self::builtin_array_oid(element.oid)?, element.typmod),
            };
        }
        if let Some(b) = BUILTINS.iter().find(|b| b.name == name) {
            return Self::builtin(b.oid, -1);
        }
        if let Some(element) = name.strip_prefix('_') {
            return Self::builtin(Self::builtin_array_oid(BUILTINS.iter().find(|b| b.name == element)?.oid)?, -1);
        }
        let (base, modifiers) = split_modifiers(name)?;
        if let Some(fields) = base.strip_prefix("interval") {
            let fields = fields.split_whitespace().collect::<Vec<_>>().join(" ");
            let range = match fields.as_str() {
                "" => INTERVAL_FULL_RANGE,
                f => INTERVAL_RANGES.iter().find(|(_, n)| n.trim_start() == f)?.0,
            };
            let precision = match modifiers.as_slice() {
                [] => INTERVAL_FULL_PRECISION,
                [p @ 0..=6] => *p,
                _ => return None,
            };
            let plain = range == INTERVAL_FULL_RANGE && precision == INTERVAL_FULL_PRECISION;
            return Self::builtin(1186, if plain { -1 } else { range << 16 | precision });
        }
        let base = SPELLINGS.iter().find(|(n, _)| *n == base).map_or(base.as_str(), |(_, n)| n);
        let found = match base {
            "time" => find(1083),
            "timestamp" => find(1114),
            // The word `char` is SQL's character; the type of that name is only meant in quotes.
            "char" => find(1042),
            "\"char\"" => find(18),
            b => BUILTINS.iter().find(|t| t.sql_name == b || t.name == b),
        }?;
        let typmod = match (found.oid, modifiers.as_slice()) {
            (1042 | 1560, []) if base != "bpchar" => {
                if found.oid == 1042 {
                    1 + 4
                } else {
                    1
                }
            }
            (_, []) => -1,
            (1042 | 1043, [n]) if *n > 0 => n + 4,
            (1560 | 1562, [n]) if *n > 0 => *n,
            (1083 | 1114 | 1184 | 1266, [n]) if (0..=6).contains(n) => *n,
            (1700, [p]) if (1..=1000).contains(p) => super::numeric::make_typmod(*p, 0),
            (1700, [p, s]) if (1..=1000).contains(p) && (-1000..=1000).contains(s) => super::numeric::make_typmod(*p, *s),
            _ => return None,
        };
        Self::builtin(found.oid, typmod)
    }

    /// As `format_type(oid, typmod)` prints it: `character varying(20)`, `numeric(10,2)`, `integer[]`.
    pub fn sql_name(&self) -> String {
        if self.kind == Kind::Array {
            return match &self.element {
                Some(e) => {
                    let mut element = DataType::clone(e);
                    element.typmod = self.typmod;
                    format!("{}[]", element.sql_name())
                }
                None => self.name.to_string(),
            };
        }
        let Some(b) = find(self.oid) else { return self.name.to_string() };
        let m = self.typmod;
        match b.oid {
            1042 if m < 0 => "bpchar".into(),
            1560 if m < 0 => "\"bit\"".into(),
            _ if m < 0 => b.sql_name.into(),
            1042 | 1043 => format!("{}({})", b.sql_name, m - 4),
            1560 | 1562 => format!("{}({m})", b.sql_name),
            1700 => {
                let (precision, scale) = super::numeric::split_typmod(m);
                format!("numeric({precision},{scale})")
            }
            1083 => format!("time({m}) without time zone"),
            1266 => format!("time({m}) with time zone"),
            1114 => format!("timestamp({m}) without time zone"),
            1184 => format!("timestamp({m}) with time zone"),
            1186 => {
                let range = m >> 16 & 0x7FFF;
                let mut name = String::from("interval");
                name.push_str(INTERVAL_RANGES.iter().find(|(r, _)| *r == range).map_or("", |(_, n)| n));
                if m & 0xFFFF != INTERVAL_FULL_PRECISION {
                    name.push_str(&format!("({})", m & 0xFFFF));
                }
                name
            }
            _ => b.sql_name.into(),
        }
    }
}

/// Takes the parenthesised numbers out of a type's name: `timestamp(3) with time zone` is `timestamp with time zone` and 3.
fn split_modifiers(name: &str) -> Option<(String, Vec<i32>)> {
    let Some(open) = name.find('(') else {
        return Some((name.split_whitespace().collect::<Vec<_>>().join(" "), Vec::new()));
    };
    let close = open + name[open..].find(')')?;
    let modifiers = name[open + 1..close].split(',').map(|n| n.trim().parse::<i32>().ok()).collect::<Option<Vec<_>>>()?;
    let base = format!("{} {}", &name[..open], &name[close + 1..]);
    Some((base.split_whitespace().collect::<Vec<_>>().join(" "), modifiers))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn builtin_table_is_sorted_by_oid() {
        assert!(BUILTINS.windows(2).all(|w| w[0].oid < w[1].oid));
    }

    #[test]
    fn sql_names_are_format_types() {
        let cases: &[(u32, i32, &str)] = &[
            (16, -1, "boolean"),
            (18, -1, "\"char\""),
            (23, -1, "integer"),
            (1007, -1, "integer[]"),
            (1043, 24, "character varying(20)"),
            (1015, 24, "character varying(20)[]"),
            (1042, 5, "character(1)"),
            (1042, -1, "bpchar"),
            (1700, (10 << 16 | 2) + 4, "numeric(10,2)"),
            (1700, (2 << 16 | (-3 & 0x7ff)) + 4, "numeric(2,-3)"),
            (1114, 3, "timestamp(3) without time zone"),
            (1184, -1, "timestamp with time zone"),
            (1186, 0x7FFF << 16 | 3, "interval(3)"),
            (1186, 0x1C08 << 16 | 0xFFFF, "interval day to second"),
            (1560, 3, "bit(3)"),
            (271, -1, "xid8[]"),
        ];
        for (oid, typmod, name) in cases {
            let t = DataType::builtin(*oid, *typmod).unwrap();
            assert_eq!(t.sql_name(), *name);
            if !matches!(*oid, 1042 if *typmod < 0) {
                assert_eq!(DataType::by_name(name), Some(t), "{name}");
            }
        }
    }

    #[test]
    fn names_of_the_grammar_are_known() {
        for (name, sql) in [
            ("int", "integer"),
            ("_int4", "integer[]"),
            ("integer[][]", "integer[]"),
            ("decimal(5)", "numeric(5,0)"),
            ("char", "\"char\""),
            ("character", "character(1)"),
            ("varchar(3)", "character varying(3)"),
            ("timestamp", "timestamp without time zone"),
            ("interval year to month", "interval year to month"),
        ] {
            assert_eq!(DataType::by_name(name).map(|t| t.sql_name()).as_deref(), Some(sql), "{name}");
        }
        assert_eq!(DataType::by_name("nosuch"), None);
    }
}
