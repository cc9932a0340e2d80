//! The day and the time that templates write, as Python's `strftime` does.

use std::time::{SystemTime, UNIX_EPOCH};

/// What `strftime_now` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Clock {
    /// The time of the machine, in UTC.
    #[default]
    System,
    /// Always the same, in seconds since the first of January 1970.
    Fixed(i64),
}

impl Clock {
    /// The first of January 2025. What is learned has to be the same on whichever day a run begins or goes on.
    pub const LEARNED: Self = Self::Fixed(1_735_689_600);

    /// Writes the time in a format of `strftime`, in English. Directives that it does not know stay as they are.
    pub(super) fn strftime(self, format: &str) -> String {
        let now = match self {
            Self::Fixed(seconds) => seconds,
            Self::System => SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .ok()
                .and_then(|time| i64::try_from(time.as_secs()).ok())
                .unwrap_or(0),
        };
        Civil::of(now).strftime(format)
    }
}

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];

const DAYS: [&str; 7] = [
    "Sunday",
    "Monday",
    "Tuesday",
    "Wednesday",
    "Thursday",
    "Friday",
    "Saturday",
];

/// A day of the calendar and a time of it.
struct Civil {
    year: i64,
    /// From 0.
    month: usize,
    day: i64,
    /// From 0.
    day_of_year: i64,
    /// From Sunday.
    weekday: usize,
    second_of_day: i64,
}

impl Civil {
    /// The Gregorian calendar, by `civil_from_days` of <https://howardhinnant.github.io/date_algorithms.html>.
    fn of(seconds: i64) -> Self {
        let days = seconds.div_euclid(86_400);
        let shifted = days + 719_468;
        let era = shifted.div_euclid(146_097);
        let of_era = shifted.rem_euclid(146_097);
        let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
        // From the first of March on, so that the day that only leap years have is the last one.
        let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let from_march = (5 * of_year + 2) / 153;
        let day = of_year - (153 * from_march + 2) / 5 + 1;
        let month = (from_march + 2) % 12;
        let year = year_of_era + era * 400 + i64::from(month < 2);
        let is_leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
        let before_march = 59 + i64::from(is_leap);
        let day_of_year = match month < 2 {
            true => of_year - 306,
            false => of_year + before_march,
        };
        Self {
            year,
            month: usize::try_from(month).unwrap_or(0),
            day,
            day_of_year,
            weekday: usize::try_from((days + 4).rem_euclid(7)).unwrap_or(0),
            second_of_day: seconds.rem_euclid(86_400),
        }
    }

    fn strftime(&self, format: &str) -> String {
        let (hour, minute) = (self.second_of_day / 3600, self.second_of_day / 60 % 60);
        let short = |name: &'static str| name[..3].to_owned();
        let mut text = String::with_capacity(format.len() + 16);
        let mut rest = format.chars();
        while let Some(c) = rest.next() {
            if c != '%' {
                text.push(c);
                continue;
            }
            let before = rest.clone();
            let written = match rest.next() {
                Some('Y') => self.year.to_string(),
                Some('y') => format!("{:02}", self.year.rem_euclid(100)),
                Some('m') => format!("{:02}", self.month + 1),
                Some('d') => format!("{:02}", self.day),
                Some('e') => format!("{:2}", self.day),
                Some('B') => MONTHS[self.month].to_owned(),
                Some('b' | 'h') => short(MONTHS[self.month]),
                Some('A') => DAYS[self.weekday].to_owned(),
                Some('a') => short(DAYS[self.weekday]),
                Some('w') => self.weekday.to_string(),
                Some('j') => format!("{:03}", self.day_of_year + 1),
                Some('H') => format!("{hour:02}"),
                Some('I') => format!("{:02}", (hour + 11) % 12 + 1),
                Some('p') => if hour < 12 { "AM" } else { "PM" }.to_owned(),
                Some('M') => format!("{minute:02}"),
                Some('S') => format!("{:02}", self.second_of_day % 60),
                Some('F') => format!("{}-{:02}-{:02}", self.year, self.month + 1, self.day),
                Some('T') => format!("{hour:02}:{minute:02}:{:02}", self.second_of_day % 60),
                Some('Z') => "UTC".to_owned(),
                Some('%') => "%".to_owned(),
                _ => {
                    rest = before;
                    "%".to_owned()
                }
            };
            text.push_str(&written);
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As `datetime.fromtimestamp(.., timezone.utc).strftime(..)` of Python 3.12.
    #[test]
    fn dates_are_written_as_python_does() {
        let all = "%Y-%m-%d %H:%M:%S|%y|%e|%B %b|%A %a|%w|%j|%I %p|%F %T|%%";
        for (seconds, expected) in [
            (
                0,
                "1970-01-01 00:00:00|70| 1|January Jan|Thursday Thu|4|001|12 AM|1970-01-01 00:00:00|%",
            ),
            (
                951_782_399,
                "2000-02-28 23:59:59|00|28|February Feb|Monday Mon|1|059|11 PM|2000-02-28 23:59:59|%",
            ),
            (
                951_782_400,
                "2000-02-29 00:00:00|00|29|February Feb|Tuesday Tue|2|060|12 AM|2000-02-29 00:00:00|%",
            ),
            (
                951_868_800,
                "2000-03-01 00:00:00|00| 1|March Mar|Wednesday Wed|3|061|12 AM|2000-03-01 00:00:00|%",
            ),
            (
                1_735_689_600,
                "2025-01-01 00:00:00|25| 1|January Jan|Wednesday Wed|3|001|12 AM|2025-01-01 00:00:00|%",
            ),
            (
                1_798_761_599,
                "2026-12-31 23:59:59|26|31|December Dec|Thursday Thu|4|365|11 PM|2026-12-31 23:59:59|%",
            ),
            (
                -1,
                "1969-12-31 23:59:59|69|31|December Dec|Wednesday Wed|3|365|11 PM|1969-12-31 23:59:59|%",
            ),
        ] {
            assert_eq!(Clock::Fixed(seconds).strftime(all), expected);
        }
        assert_eq!(Clock::Fixed(0).strftime("%Q é %"), "%Q é %");
        assert_ne!(Clock::System.strftime("%Y"), "1970");
    }
}
