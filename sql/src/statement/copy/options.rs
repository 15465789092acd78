//! COPY's options.

use pg_query::NodeEnum;
use pg_query::protobuf::Node;

use crate::error::{ErrorCode, Result, SqlError};
use crate::parse::Source;
use crate::session::settings::is_other_encoding;
use crate::statement::tree;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Text,
    Csv,
    Binary,
}

/// Columns that an option is for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ColumnSet {
    #[default]
    None,
    All,
    Named(Vec<String>),
}

impl ColumnSet {
    pub fn has(&self, name: &str) -> bool {
        match self {
            ColumnSet::None => false,
            ColumnSet::All => true,
            ColumnSet::Named(names) => names.iter().any(|n| n == name),
        }
    }
}

#[derive(Clone, Debug)]
pub struct CopyOptions {
    pub format: Format,
    pub delimiter: u8,
    pub null: String,
    pub header: bool,
    /// HEADER MATCH: the names must be the columns'.
    pub header_match: bool,
    pub quote: u8,
    pub escape: u8,
    pub force_quote: ColumnSet,
    pub force_not_null: ColumnSet,
    pub force_null: ColumnSet,
}

impl CopyOptions {
    pub fn read(nodes: &[Node], is_from: bool, source: &Source) -> Result<Self> {
        let mut format = None;
        let (mut delimiter, mut null, mut quote, mut escape) = (None, None, None, None);
        let (mut header, mut header_match) = (false, false);
        let (mut force_quote, mut force_not_null, mut force_null) = (ColumnSet::None, ColumnSet::None, ColumnSet::None);
        let mut given: Vec<&str> = Vec::new();
        for option in tree::def_elems(nodes) {
            if given.contains(&option.defname.as_str()) {
                return Err(SqlError::new(ErrorCode::SyntaxError, "conflicting or redundant options").at(source.position(option.location)));
            }
            given.push(&option.defname);
            let text = || tree::def_text(option).unwrap_or_default();
            match option.defname.as_str() {
                "format" => {
                    format = Some(match text().to_ascii_lowercase().as_str() {
                        "text" => Format::Text,
                        "csv" => Format::Csv,
                        "binary" => Format::Binary,
                        other => {
                            let message = format!("COPY format \"{other}\" not recognized");
                            return Err(SqlError::new(ErrorCode::InvalidParameterValue, message).at(source.position(option.location)));
                        }
                    });
                }
                "delimiter" => delimiter = Some(text()),
                "null" => null = Some(text()),
                "header" if text().eq_ignore_ascii_case("match") => {
                    if !is_from {
                        return Err(SqlError::new(ErrorCode::FeatureNotSupported, "cannot use \"match\" with HEADER in COPY TO"));
                    }
                    header = true;
                    header_match = true;
                }
                "header" => {
                    header = tree::def_bool(option)
                        .map_err(|_| SqlError::new(ErrorCode::SyntaxError, "header requires a Boolean value or \"match\""))?;
                }
                "quote" => quote = Some(text()),
                "escape" => escape = Some(text()),
                "force_quote" => force_quote = columns(option.arg.as_deref())?,
                "force_not_null" => force_not_null = columns(option.arg.as_deref())?,
                "force_null" => force_null = columns(option.arg.as_deref())?,
                "encoding" => {
                    let encoding = text().chars().filter(char::is_ascii_alphanumeric).collect::<String>().to_ascii_lowercase();
                    if is_other_encoding(&encoding) {
                        return Err(SqlError::unsupported(format_args!("COPY encoding \"{}\"", text())));
                    }
                    if !matches!(encoding.as_str(), "utf8" | "unicode") {
                        let message = "argument to option \"encoding\" must be a valid encoding name";
                        return Err(SqlError::new(ErrorCode::InvalidParameterValue, message).at(source.position(option.location)));
                    }
                }
                // Rows are as visible as any others: a hint for PostgreSQL's storage.
                "freeze" => {
                    tree::def_bool(option)?;
                }
                other => {
                    let message = format!("option \"{other}\" not recognized");
                    return Err(SqlError::new(ErrorCode::SyntaxError, message).at(source.position(option.location)));
                }
            }
        }
        let format = format.unwrap_or(Format::Text);
        let one_byte = |value: Option<String>, what: &str, default: u8| match value {
            None => Ok(default),
            Some(text) if text.len() == 1 && !matches!(text.as_bytes()[0], b'\n' | b'\r') => Ok(text.as_bytes()[0]),
            Some(_) => Err(SqlError::new(ErrorCode::FeatureNotSupported, format!("COPY {what} must be a single one-byte character"))),
        };
        let csv = format == Format::Csv;
        let only_csv = |given: bool, what: &str| {
            if given && !csv {
                return Err(SqlError::new(ErrorCode::FeatureNotSupported, format!("COPY {what} available only in CSV mode")));
            }
            Ok(())
        };
        if format == Format::Binary {
            for (given, what) in [(delimiter.is_some(), "DELIMITER"), (null.is_some(), "NULL"), (header, "HEADER")] {
                if given {
                    return Err(SqlError::new(ErrorCode::SyntaxError, format!("cannot specify {what} in BINARY mode")));
                }
            }
        }
        only_csv(quote.is_some(), "quote")?;
        only_csv(escape.is_some(), "escape")?;
        only_csv(force_quote != ColumnSet::None, "force quote")?;
        only_csv(force_not_null != ColumnSet::None, "force not null")?;
        only_csv(force_null != ColumnSet::None, "force null")?;
        for (given, what, only) in [
            (is_from && force_quote != ColumnSet::None, "force quote", "COPY TO"),
            (!is_from && force_not_null != ColumnSet::None, "force not null", "COPY FROM"),
            (!is_from && force_null != ColumnSet::None, "force null", "COPY FROM"),
        ] {
            if given {
                return Err(SqlError::new(ErrorCode::FeatureNotSupported, format!("COPY {what} only available using {only}")));
            }
        }
        if delimiter.as_deref().is_some_and(|d| matches!(d, "\n" | "\r")) {
            return Err(SqlError::new(ErrorCode::InvalidParameterValue, "COPY delimiter cannot be newline or carriage return"));
        }
        let quote = one_byte(quote, "quote", b'"')?;
        let options = CopyOptions {
            format,
            delimiter: one_byte(delimiter, "delimiter", if csv { b',' } else { b'\t' })?,
            null: null.unwrap_or_else(|| if csv { String::new() } else { "\\N".into() }),
            header,
            header_match,
            quote,
            escape: one_byte(escape, "escape", quote)?,
            force_quote,
            force_not_null,
            force_null,
        };
        if options.null.contains(['\n', '\r']) {
            return Err(SqlError::new(ErrorCode::InvalidParameterValue, "COPY null representation cannot use newline or carriage return"));
        }
        if !csv && b"\\.abcdefghijklmnopqrstuvwxyz0123456789".contains(&options.delimiter) {
            return Err(SqlError::new(
                ErrorCode::InvalidParameterValue,
                format!("COPY delimiter cannot be \"{}\"", options.delimiter as char),
            ));
        }
        if csv && options.delimiter == options.quote {
            return Err(SqlError::new(ErrorCode::InvalidParameterValue, "COPY delimiter and quote must be different"));
        }
        Ok(options)
    }
}

fn columns(arg: Option<&Node>) -> Result<ColumnSet> {
    match arg.and_then(|a| a.node.as_ref()) {
        Some(NodeEnum::AStar(_)) => Ok(ColumnSet::All),
        Some(NodeEnum::List(list)) => Ok(ColumnSet::Named(tree::strings(&list.items))),
        _ => Err(tree::malformed()),
    }
}
