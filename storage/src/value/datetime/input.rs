use super::*;
use crate::error::{Error, Result};
use crate::value::TextSettings;
pub fn parse_date(text: &str, settings: &TextSettings) -> Result<i32> { let _ = settings; Err(Error::invalid_text("date", text)) }
pub fn parse_time(text: &str, typmod: i32, settings: &TextSettings) -> Result<i64> { let _ = (typmod, settings); Err(Error::invalid_text("time", text)) }
pub fn parse_timetz(text: &str, typmod: i32, settings: &TextSettings) -> Result<TimeTz> { let _ = (typmod, settings); Err(Error::invalid_text("time", text)) }
pub fn parse_timestamp(text: &str, typmod: i32, settings: &TextSettings) -> Result<i64> { let _ = (typmod, settings); Err(Error::invalid_text("time", text)) }
pub fn parse_timestamptz(text: &str, typmod: i32, settings: &TextSettings) -> Result<i64> { let _ = (typmod, settings); Err(Error::invalid_text("time", text)) }
pub fn parse_interval(text: &str, typmod: i32, settings: &TextSettings) -> Result<Interval> { let _ = (typmod, settings); Err(Error::invalid_text("time", text)) }
