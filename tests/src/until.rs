//! Waiting for a state that nothing announces.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::scale;

/// Asks again and again until there is an answer; the error that ends the patience tells the last one.
pub fn until<T>(
    what: &str,
    patience: Duration,
    mut ask: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let deadline = Instant::now() + scale::patience(patience);
    loop {
        let answer = ask();
        if let Ok(Some(answer)) = answer {
            return Ok(answer);
        }
        if Instant::now() >= deadline {
            match answer {
                Err(error) => return Err(error.context(format!("{what}: not within {patience:?}"))),
                Ok(_) => bail!("{what}: not within {patience:?}"),
            }
        }
        thread::sleep(Duration::from_millis(20));
    }
}
