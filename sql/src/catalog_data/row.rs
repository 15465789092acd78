//! One struct per exported catalog table, and how its lines are read. The fields are the catalog's columns in short names.
//!
//! A line that does not read is a broken build, so reading panics (`BUG:`); the unit tests of this folder read every line.

use std::fmt::Debug;
use std::str::FromStr;

use crate::types::Oid;

/// A row that reads itself from the fields of a line.
pub(super) trait FromRow: Sized {
    fn from_fields(fields: &mut Fields) -> Self;

    fn read_all(text: &'static str) -> Vec<Self> {
        text.lines()
            .skip(1)
            .map(|line| {
                let mut fields = Fields { line, rest: line.split('\t') };
                Self::from_fields(&mut fields)
            })
            .collect()
    }
}

pub(super) fn read<T: FromRow>(text: &'static str) -> Vec<T> {
    T::read_all(text)
}

/// The fields of a line in COPY's text format.
pub(super) struct Fields {
    line: &'static str,
    rest: std::str::Split<'static, char>,
}

impl Fields {
    /// `None` for `\N`. Escapes occur in a handful of rows; their unescaped text is leaked, once per process.
    fn optional(&mut self) -> Option<&'static str> {
        let field = self.rest.next().unwrap_or_else(|| panic!("BUG: too few fields in catalog line {:?}", self.line));
        if field == "\\N" {
            return None;
        }
        if !field.contains('\\') {
            return Some(field);
        }
        let mut text = String::with_capacity(field.len());
        let mut chars = field.chars();
        while let Some(c) = chars.next() {
            match (c, c == '\\') {
                (_, true) => match chars.next() {
                    Some('n') => text.push('\n'),
                    Some('t') => text.push('\t'),
                    Some('r') => text.push('\r'),
                    Some(other) => text.push(other),
                    None => {}
                },
                (c, false) => text.push(c),
            }
        }
        Some(Box::leak(text.into_boxed_str()))
    }

    fn text(&mut self) -> &'static str {
        self.optional().unwrap_or_else(|| panic!("BUG: unexpected NULL in catalog line {:?}", self.line))
    }

    fn parse<T: FromStr<Err: Debug>>(&mut self) -> T {
        let line = self.line;
        self.text().parse().unwrap_or_else(|e| panic!("BUG: bad field ({e:?}) in catalog line {line:?}"))
    }

    fn flag(&mut self) -> bool {
        self.text() == "1"
    }

    fn letter(&mut self) -> u8 {
        self.text().bytes().next().unwrap_or(b' ')
    }

    fn oids(&mut self) -> Vec<Oid> {
        let line = self.line;
        let text = self.optional().unwrap_or("");
        text.split(',')
            .filter(|s| !s.is_empty())
            .map(|s| s.parse().unwrap_or_else(|e| panic!("BUG: bad oid list ({e}) in catalog line {line:?}")))
            .collect()
    }
}

/// pg_type, row types of relations left out.
#[derive(Clone, Debug)]
pub struct TypeRow {
    pub oid: Oid,
    pub name: &'static str,
    pub len: i16,
    pub by_value: bool,
    /// `b` base, `p` pseudo, `r` range, `m` multirange.
    pub kind: u8,
    pub category: u8,
    pub preferred: bool,
    pub delimiter: u8,
    pub element: Oid,
    pub array: Oid,
    pub input: Oid,
    pub output: Oid,
    pub receive: Oid,
    pub send: Oid,
    pub modifier_in: Oid,
    pub modifier_out: Oid,
    pub subscript: Oid,
    pub analyze: Oid,
    pub align: u8,
    pub storage: u8,
    pub collation: Oid,
}

impl FromRow for TypeRow {
    fn from_fields(f: &mut Fields) -> Self {
        TypeRow {
            oid: f.parse(),
            name: f.text(),
            len: f.parse(),
            by_value: f.flag(),
            kind: f.letter(),
            category: f.letter(),
            preferred: f.flag(),
            delimiter: f.letter(),
            element: f.parse(),
            array: f.parse(),
            input: f.parse(),
            output: f.parse(),
            receive: f.parse(),
            send: f.parse(),
            modifier_in: f.parse(),
            modifier_out: f.parse(),
            subscript: f.parse(),
            analyze: f.parse(),
            align: f.letter(),
            storage: f.letter(),
            collation: f.parse(),
        }
    }
}

impl TypeRow {
    /// Says whether this is an array of another type with subscripts of its own (int2vector is not, `_int4` is).
    pub fn is_true_array(&self) -> bool {
        self.element != 0 && self.len == -1 && self.category == b'A'
    }
}

/// A parameter's mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ArgMode {
    In,
    Out,
    InOut,
    Variadic,
    Table,
}

/// pg_proc.
#[derive(Clone, Debug)]
pub struct ProcRow {
    pub oid: Oid,
    pub name: &'static str,
    /// `f` function, `a` aggregate, `w` window function, `p` procedure.
    pub kind: u8,
    pub language: Oid,
    pub cost: f32,
    pub rows: f32,
    /// The element type of a variadic last argument, 0 for none.
    pub variadic: Oid,
    pub support: Oid,
    pub strict: bool,
    pub returns_set: bool,
    /// `i`, `s`, `v`.
    pub volatility: u8,
    pub parallel: u8,
    pub leakproof: bool,
    pub return_type: Oid,
    /// Input arguments only.
    pub arg_types: Vec<Oid>,
    /// All arguments when there are others than plain input ones, else empty.
    pub all_arg_types: Vec<Oid>,
    pub arg_modes: Vec<ArgMode>,
    /// Of all arguments; empty when none has a name.
    pub arg_names: Vec<&'static str>,
    pub default_count: u16,
    /// The defaults of the last `default_count` input arguments, as SQL text separated by commas.
    pub defaults: Option<&'static str>,
    /// The implementation's name in C (for operators' functions a good hint), empty for SQL functions.
    pub source: &'static str,
}

impl FromRow for ProcRow {
    fn from_fields(f: &mut Fields) -> Self {
        ProcRow {
            oid: f.parse(),
            name: f.text(),
            kind: f.letter(),
            language: f.parse(),
            cost: f.parse(),
            rows: f.parse(),
            variadic: f.parse(),
            support: f.parse(),
            strict: f.flag(),
            returns_set: f.flag(),
            volatility: f.letter(),
            parallel: f.letter(),
            leakproof: f.flag(),
            return_type: f.parse(),
            arg_types: f.oids(),
            all_arg_types: f.oids(),
            arg_modes: f
                .optional()
                .unwrap_or("")
                .bytes()
                .map(|b| match b {
                    b'o' => ArgMode::Out,
                    b'b' => ArgMode::InOut,
                    b'v' => ArgMode::Variadic,
                    b't' => ArgMode::Table,
                    _ => ArgMode::In,
                })
                .collect(),
            arg_names: f.optional().map(|s| s.split(',').collect()).unwrap_or_default(),
            default_count: f.parse(),
            defaults: f.optional(),
            source: f.text(),
        }
    }
}

impl ProcRow {
    /// Names (in call order) of the input arguments; `""` for one without a name.
    pub fn input_names(&self) -> Vec<&'static str> {
        if self.arg_names.is_empty() {
            return vec![""; self.arg_types.len()];
        }
        if self.arg_modes.is_empty() {
            return self.arg_names.clone();
        }
        self.arg_names
            .iter()
            .zip(&self.arg_modes)
            .filter(|(_, m)| matches!(m, ArgMode::In | ArgMode::InOut | ArgMode::Variadic))
            .map(|(n, _)| *n)
            .collect()
    }

    /// The OUT, INOUT and TABLE arguments with their declared (perhaps polymorphic) types; empty when there are none.
    pub fn out_columns(&self) -> Vec<(&'static str, Oid)> {
        self.arg_modes
            .iter()
            .enumerate()
            .filter(|(_, m)| matches!(m, ArgMode::Out | ArgMode::InOut | ArgMode::Table))
            .map(|(i, _)| (self.arg_names.get(i).copied().unwrap_or(""), self.all_arg_types[i]))
            .collect()
    }
}

/// pg_operator.
#[derive(Clone, Debug)]
pub struct OperatorRow {
    pub oid: Oid,
    pub name: &'static str,
    /// `b` infix, `l` prefix.
    pub kind: u8,
    pub can_merge: bool,
    pub can_hash: bool,
    /// 0 for a prefix operator.
    pub left: Oid,
    pub right: Oid,
    pub result: Oid,
    pub commutator: Oid,
    pub negator: Oid,
    pub proc: Oid,
    pub restrict: Oid,
    pub join: Oid,
}

impl FromRow for OperatorRow {
    fn from_fields(f: &mut Fields) -> Self {
        OperatorRow {
            oid: f.parse(),
            name: f.text(),
            kind: f.letter(),
            can_merge: f.flag(),
            can_hash: f.flag(),
            left: f.parse(),
            right: f.parse(),
            result: f.parse(),
            commutator: f.parse(),
            negator: f.parse(),
            proc: f.parse(),
            restrict: f.parse(),
            join: f.parse(),
        }
    }
}

/// pg_cast.
#[derive(Clone, Debug)]
pub struct CastRow {
    pub oid: Oid,
    pub source: Oid,
    pub target: Oid,
    pub function: Oid,
    /// `i` implicit, `a` assignment, `e` explicit.
    pub context: u8,
    /// `f` function, `i` input/output, `b` binary coercible.
    pub method: u8,
}

impl FromRow for CastRow {
    fn from_fields(f: &mut Fields) -> Self {
        CastRow { oid: f.parse(), source: f.parse(), target: f.parse(), function: f.parse(), context: f.letter(), method: f.letter() }
    }
}

/// pg_aggregate.
#[derive(Clone, Debug)]
pub struct AggregateRow {
    pub proc: Oid,
    /// `n` normal, `o` ordered-set, `h` hypothetical-set.
    pub kind: u8,
    pub direct_args: i16,
    pub transition: Oid,
    pub finish: Oid,
    pub sort_operator: Oid,
    pub transition_type: Oid,
    pub initial: Option<&'static str>,
}

impl FromRow for AggregateRow {
    fn from_fields(f: &mut Fields) -> Self {
        AggregateRow {
            proc: f.parse(),
            kind: f.letter(),
            direct_args: f.parse(),
            transition: f.parse(),
            finish: f.parse(),
            sort_operator: f.parse(),
            transition_type: f.parse(),
            initial: f.optional(),
        }
    }
}

/// pg_am.
#[derive(Clone, Debug)]
pub struct AccessMethodRow {
    pub oid: Oid,
    pub name: &'static str,
    pub handler: Oid,
    /// `t` table, `i` index.
    pub kind: u8,
}

impl FromRow for AccessMethodRow {
    fn from_fields(f: &mut Fields) -> Self {
        AccessMethodRow { oid: f.parse(), name: f.text(), handler: f.parse(), kind: f.letter() }
    }
}

/// pg_opfamily.
#[derive(Clone, Debug)]
pub struct OperatorFamilyRow {
    pub oid: Oid,
    pub method: Oid,
    pub name: &'static str,
}

impl FromRow for OperatorFamilyRow {
    fn from_fields(f: &mut Fields) -> Self {
        OperatorFamilyRow { oid: f.parse(), method: f.parse(), name: f.text() }
    }
}

/// pg_opclass.
#[derive(Clone, Debug)]
pub struct OperatorClassRow {
    pub oid: Oid,
    pub method: Oid,
    pub name: &'static str,
    pub family: Oid,
    pub input_type: Oid,
    pub is_default: bool,
    pub key_type: Oid,
}

impl FromRow for OperatorClassRow {
    fn from_fields(f: &mut Fields) -> Self {
        OperatorClassRow {
            oid: f.parse(),
            method: f.parse(),
            name: f.text(),
            family: f.parse(),
            input_type: f.parse(),
            is_default: f.flag(),
            key_type: f.parse(),
        }
    }
}

/// pg_amop.
#[derive(Clone, Debug)]
pub struct AmopRow {
    pub oid: Oid,
    pub family: Oid,
    pub left: Oid,
    pub right: Oid,
    pub strategy: i16,
    pub purpose: u8,
    pub operator: Oid,
    pub method: Oid,
    pub sort_family: Oid,
}

impl FromRow for AmopRow {
    fn from_fields(f: &mut Fields) -> Self {
        AmopRow {
            oid: f.parse(),
            family: f.parse(),
            left: f.parse(),
            right: f.parse(),
            strategy: f.parse(),
            purpose: f.letter(),
            operator: f.parse(),
            method: f.parse(),
            sort_family: f.parse(),
        }
    }
}

/// pg_amproc.
#[derive(Clone, Debug)]
pub struct AmprocRow {
    pub oid: Oid,
    pub family: Oid,
    pub left: Oid,
    pub right: Oid,
    pub number: i16,
    pub proc: Oid,
}

impl FromRow for AmprocRow {
    fn from_fields(f: &mut Fields) -> Self {
        AmprocRow { oid: f.parse(), family: f.parse(), left: f.parse(), right: f.parse(), number: f.parse(), proc: f.parse() }
    }
}

/// pg_collation, the ones that do not depend on a machine's locales.
#[derive(Clone, Debug)]
pub struct CollationRow {
    pub oid: Oid,
    pub name: &'static str,
    pub provider: u8,
    pub deterministic: bool,
    pub encoding: i32,
    pub collate: Option<&'static str>,
    pub ctype: Option<&'static str>,
}

impl FromRow for CollationRow {
    fn from_fields(f: &mut Fields) -> Self {
        CollationRow {
            oid: f.parse(),
            name: f.text(),
            provider: f.letter(),
            deterministic: f.flag(),
            encoding: f.parse(),
            collate: f.optional(),
            ctype: f.optional(),
        }
    }
}

/// pg_namespace.
#[derive(Clone, Debug)]
pub struct NamespaceRow {
    pub oid: Oid,
    pub name: &'static str,
}

impl FromRow for NamespaceRow {
    fn from_fields(f: &mut Fields) -> Self {
        NamespaceRow { oid: f.parse(), name: f.text() }
    }
}

/// pg_range.
#[derive(Clone, Debug)]
pub struct RangeRow {
    pub range: Oid,
    pub subtype: Oid,
    pub multirange: Oid,
    pub collation: Oid,
    pub subtype_class: Oid,
    pub canonical: Oid,
    pub difference: Oid,
}

impl FromRow for RangeRow {
    fn from_fields(f: &mut Fields) -> Self {
        RangeRow {
            range: f.parse(),
            subtype: f.parse(),
            multirange: f.parse(),
            collation: f.parse(),
            subtype_class: f.parse(),
            canonical: f.parse(),
            difference: f.parse(),
        }
    }
}

/// pg_language.
#[derive(Clone, Debug)]
pub struct LanguageRow {
    pub oid: Oid,
    pub name: &'static str,
    pub is_procedural: bool,
    pub trusted: bool,
    pub call_handler: Oid,
    pub inline_handler: Oid,
    pub validator: Oid,
}

impl FromRow for LanguageRow {
    fn from_fields(f: &mut Fields) -> Self {
        LanguageRow {
            oid: f.parse(),
            name: f.text(),
            is_procedural: f.flag(),
            trusted: f.flag(),
            call_handler: f.parse(),
            inline_handler: f.parse(),
            validator: f.parse(),
        }
    }
}

/// pg_description of built-in schemas, languages, access methods and types.
#[derive(Clone, Debug)]
pub struct DescriptionRow {
    pub object: Oid,
    /// The catalog that the object is in.
    pub class: &'static str,
    pub text: &'static str,
}

impl FromRow for DescriptionRow {
    fn from_fields(f: &mut Fields) -> Self {
        DescriptionRow { object: f.parse(), class: f.text(), text: f.text() }
    }
}
