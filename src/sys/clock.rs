//! Times as people here write them.
#![allow(unsafe_code)]

use std::mem::MaybeUninit;

/// `YYYY-MM-DD HH:MM:SS` in the time zone of the caller; the seconds themselves where that cannot be told.
/// Source: localtime(3), tzset(3).
pub fn local(secs: i64) -> String {
    unsafe extern "C" {
        fn tzset();
    }
    let mut broken = MaybeUninit::<libc::tm>::uninit();
    // SAFETY: `secs` and `broken` live through the call, and `broken` has room for the answer. tzset reads the environment,
    // which nobody in this program changes; localtime_r need not read it by itself.
    let tm = unsafe {
        tzset();
        if libc::localtime_r(&secs, broken.as_mut_ptr()).is_null() {
            return secs.to_string();
        }
        broken.assume_init()
    };
    format!(
        "{:04}-{:02}-{:02} {:02}:{:02}:{:02}",
        i64::from(tm.tm_year) + 1900,
        tm.tm_mon + 1,
        tm.tm_mday,
        tm.tm_hour,
        tm.tm_min,
        tm.tm_sec
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_the_form_of_ls() {
        let text = local(1_700_000_000);
        assert!(text.starts_with("2023-11-1") && text.len() == 19, "{text}");
        assert_eq!(local(i64::MAX), i64::MAX.to_string());
    }
}
