//! Turns a panic inside the database into an error.
//!
//! sled 0.34 panics on some damaged files. For us that is a refusal with a message, not a crash.

use std::any::Any;
use std::cell::Cell;
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
    format!("the database failed on it ({})", without_backtrace(&text))
}

/// sled's text without the backtrace that it means to tell and does not have.
pub(crate) fn without_backtrace(text: &str) -> String {
    text.replace(" backtrace ()", "").replace(", bt: ()", "")
}

#[cfg(test)]
mod tests {
    use super::{catch, without_backtrace};

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
            let told = without_backtrace(&text);
            assert!(!told.contains("()") && !told.contains("backtrace"), "{told}");
        }
    }
}
