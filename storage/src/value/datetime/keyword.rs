//! The words that dates, times and intervals may contain.

/// What a word stands for in a date or time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Keyword {
    Ignore,
    Special(Special),
    Month(i32),
    Weekday(i32),
    AmPm { pm: bool },
    Era { before_christ: bool },
    DaylightSaving,
    Unit(Unit),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Special {
    Now,
    Today,
    Tomorrow,
    Yesterday,
    AllBalls,
    Epoch,
    Infinity,
    NegInfinity,
}

/// Units and the names of fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unit {
    Julian,
    IsoTime,
    Microsecond,
    Millisecond,
    Second,
    Minute,
    Hour,
    Day,
    Week,
    Month,
    Quarter,
    Year,
    Decade,
    Century,
    Millennium,
    /// A unit of dates that has no use in values.
    Other,
}

/// The longest word that is told apart.
const WORD_SIZE_MAX: usize = 10;

/// Finds a word of a date or time.
pub(super) fn find(word: &str) -> Option<Keyword> {
    let word = word.get(..WORD_SIZE_MAX).unwrap_or(word);
    if let Some(month) = find_month(word) {
        return Some(Keyword::Month(month));
    }
    Some(match word {
        "at" | "on" => Keyword::Ignore,
        "now" => Keyword::Special(Special::Now),
        "today" => Keyword::Special(Special::Today),
        "tomorrow" => Keyword::Special(Special::Tomorrow),
        "yesterday" => Keyword::Special(Special::Yesterday),
        "allballs" => Keyword::Special(Special::AllBalls),
        "epoch" => Keyword::Special(Special::Epoch),
        "infinity" => Keyword::Special(Special::Infinity),
        "-infinity" => Keyword::Special(Special::NegInfinity),
        "am" => Keyword::AmPm { pm: false },
        "pm" => Keyword::AmPm { pm: true },
        "ad" => Keyword::Era { before_christ: false },
        "bc" => Keyword::Era { before_christ: true },
        "dst" => Keyword::DaylightSaving,
        "j" | "jd" | "julian" => Keyword::Unit(Unit::Julian),
        "t" => Keyword::Unit(Unit::IsoTime),
        "d" | "dow" | "doy" | "h" | "isodow" | "isoyear" | "m" | "mm" | "s" | "y" => Keyword::Unit(Unit::Other),
        _ => Keyword::Weekday(find_weekday(word)?),
    })
}

fn find_month(word: &str) -> Option<i32> {
    const MONTHS: [&str; 12] =
        ["january", "february", "march", "april", "may", "june", "july", "august", "september", "october", "november", "december"];
    if word == "sept" {
        return Some(9);
    }
    MONTHS.iter().position(|m| *m == word || word.len() == 3 && m.starts_with(word)).map(|i| i as i32 + 1)
}

fn find_weekday(word: &str) -> Option<i32> {
    const DAYS: [&str; 7] = ["sunday", "monday", "tuesday", "wednesday", "thursday", "friday", "saturday"];
    match word {
        "tues" => Some(2),
        "weds" => Some(3),
        "thur" | "thurs" => Some(4),
        _ => DAYS.iter().position(|d| *d == word || word.len() == 3 && d.starts_with(word)).map(|i| i as i32),
    }
}

/// Finds a unit of an interval.
pub(super) fn find_unit(word: &str) -> Option<Unit> {
    let word = word.get(..WORD_SIZE_MAX).unwrap_or(word);
    Some(match word {
        "c" | "cent" | "centuries" | "century" => Unit::Century,
        "d" | "day" | "days" => Unit::Day,
        "dec" | "decade" | "decades" | "decs" => Unit::Decade,
        "h" | "hour" | "hours" | "hr" | "hrs" => Unit::Hour,
        "m" | "min" | "mins" | "minute" | "minutes" => Unit::Minute,
        "mil" | "millennia" | "millennium" | "mils" => Unit::Millennium,
        "milliseco" | "millisecon" | "ms" | "msec" | "msecond" | "mseconds" | "msecs" => Unit::Millisecond,
        "microsecon" | "us" | "usec" | "usecond" | "useconds" | "usecs" => Unit::Microsecond,
        "mon" | "mons" | "month" | "months" => Unit::Month,
        "qtr" | "quarter" => Unit::Quarter,
        "s" | "sec" | "second" | "seconds" | "secs" => Unit::Second,
        "w" | "week" | "weeks" => Unit::Week,
        "y" | "year" | "years" | "yr" | "yrs" => Unit::Year,
        "timezone" | "timezone_h" | "timezone_m" => Unit::Other,
        _ => return None,
    })
}
