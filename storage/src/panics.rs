//! Turns a panic inside the database into an error.
//!
//! sled 0.34 panics on some damaged files. For us that is a refusal with a message, not a crash.

use std::any::Any;
use std::cell::Cell;
use std::io;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Once;

thread_local! {
    static CATCHING: Cell<bool> = const { Cell::new(false) };
}

/// Runs `work`; a panic in it becomes `Err` with the panic's message.
///
/// The panic is not printed: the caller reports it as an error. Whatever `work` was changing must not be used
/// again after an `Err`.
pub(crate) fn catch<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    keep_caught_panics_quiet();
    let outer = CATCHING.replace(true);
    let result = panic::catch_unwind(AssertUnwindSafe(work));
    CATCHING.set(outer);
    result.map_err(|payload| message_of(payload.as_ref()))
}

/// Puts a hook in front of the present one, once, that is silent on a thread that is inside [`catch`].
fn keep_caught_panics_quiet() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        let previous = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if !CATCHING.get() {
                previous(info);
            }
        }));
    });
}

fn message_of(payload: &(dyn Any + Send)) -> String {
    let text = payload
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| payload.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "no message".to_owned());
    format!("the database failed on it ({})", readable(&text))
}

/// How the text for developers of an error of the operating system begins, up to its number.
const OS_ERROR: &str = "Os { code: ";

/// sled's text for people: without the backtrace that it means to tell and does not have, and with errors of the
/// operating system as that tells them.
pub(crate) fn readable(text: &str) -> String {
    let text = text.replace(" backtrace ()", "").replace(", bt: ()", "");
    let mut told = String::new();
    let mut rest = text.as_str();
    while let Some(at) = rest.find(OS_ERROR) {
        let (before, error) = rest.split_at(at);
        told.push_str(before);
        match os_code_in(error).zip(error.split_once(" }")) {
            Some((code, (_, after))) => {
                told.push_str(&io::Error::from_raw_os_error(code).to_string());
                rest = after;
            }
            None => {
                told.push_str(OS_ERROR);
                rest = &error[OS_ERROR.len()..];
            }
        }
    }
    told + rest
}

/// The number of the first error of the operating system that `text` tells as for developers.
pub(crate) fn os_code_in(text: &str) -> Option<i32> {
    let (_, error) = text.split_once(OS_ERROR)?;
    let (code, _) = error.split_once(',')?;
    code.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::{catch, os_code_in, readable};

    #[test]
    fn a_panic_becomes_an_error_with_its_message() {
        assert_eq!(catch(|| 7), Ok(7));
        let error = catch(|| panic!("page {} is odd", 3)).unwrap_err();
        assert!(error.contains("page 3 is odd"), "{error}");
    }

    #[test]
    fn a_backtrace_that_is_none_is_not_told() {
        let error = sled::Error::Corruption { at: None, bt: () };
        for text in [error.to_string(), format!("{error:?}")] {
            assert!(text.contains("()"), "{text}");
            let told = readable(&text);
            assert!(!told.contains("()") && !told.contains("backtrace"), "{told}");
        }
    }

    #[test]
    fn an_error_of_the_system_is_told_as_the_system_tells_it() {
        let full = io::Error::from_raw_os_error(28);
        let plain = full.to_string();
        assert_eq!(
            readable(&format!("cannot write: {full:?}, so")),
            format!("cannot write: {plain}, so")
        );
        assert_eq!(
            readable(&format!("{full:?}, {full:?}")),
            format!("{plain}, {plain}")
        );
        for text in [
            "",
            "Os { code: ",
            "Os { code: x, kind }",
            "Os { code: 28, kind: StorageFull",
        ] {
            assert_eq!(readable(text), text);
        }
        // As sled tells one again, and again.
        let mut error = sled::Error::Io(full);
        for _ in 0..3 {
            error = error.clone();
            let sled::Error::Io(inner) = &error else {
                panic!("{error}")
            };
            assert_eq!(os_code_in(&inner.to_string()), Some(28), "{inner}");
        }
    }
}
