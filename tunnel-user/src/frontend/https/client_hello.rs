//! Reads the `ClientHello` that opens a TLS connection, as far as the name of the server goes: a plain function of the
//! bytes that have come so far, which stay where they are. ([RFC 8446], section 4.1.2; [RFC 6066], section 3)
//!
//! It may be split over several records, each in any number of packets. Whatever a client sends, no more is looked at
//! than [`MOST_BYTES`].
//!
//! [RFC 8446]: https://www.rfc-editor.org/rfc/rfc8446
//! [RFC 6066]: https://www.rfc-editor.org/rfc/rfc6066

mod fields;

use self::fields::{Fields, TooShort};

/// The longest hello: one with post-quantum keys has about 2 KiB, and no record holds more than this.
const LONGEST: usize = 16 * 1024;
/// No real client splits it further.
const MOST_RECORDS: usize = 64;
const RECORD_HEADER: usize = 5;
/// The most bytes that are ever needed.
pub(super) const MOST_BYTES: usize = LONGEST + MOST_RECORDS * RECORD_HEADER;

/// Content type and message type.
const HANDSHAKE: u8 = 22;
const CLIENT_HELLO: u8 = 1;
/// The number of the extension that names the server, and of the only kind of name that there is.
const SERVER_NAME: u16 = 0;
const HOST_NAME: u8 = 0;

/// What the bytes so far amount to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// Nothing can be said before there are so many.
    Needs(usize),
    /// A whole hello.
    Whole(ClientHello),
}

/// What a hello says.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ClientHello {
    /// The server that the client wants.
    pub(super) server_name: Option<String>,
}

/// Why bytes are the beginning of no hello.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HelloError {
    /// They are no TLS, or begin with another message.
    NotTls,
    /// They break the rules of a hello.
    Malformed,
    /// It is longer, or in more pieces, than any client's.
    TooLong,
}

/// Reads what has come so far.
pub(super) fn read(bytes: &[u8]) -> Result<Progress, HelloError> {
    let (mut message, mut rest) = (Vec::new(), bytes);
    for _ in 0..MOST_RECORDS {
        let so_far = bytes.len() - rest.len();
        let Some((header, payload)) = rest.split_first_chunk::<RECORD_HEADER>() else {
            check_start(rest)?;
            return Ok(Progress::Needs(so_far + RECORD_HEADER));
        };
        let length = record_length(*header)?;
        if message.len() + length > LONGEST {
            return Err(HelloError::TooLong);
        }
        let Some((fragment, after)) = payload.split_at_checked(length) else {
            return Ok(Progress::Needs(so_far + RECORD_HEADER + length));
        };
        message.extend_from_slice(fragment);
        rest = after;
        if let Some(body) = whole(&message)? {
            let hello = hello(body).map_err(|TooShort| HelloError::Malformed)?;
            return hello.map(Progress::Whole).ok_or(HelloError::Malformed);
        }
    }
    Err(HelloError::TooLong)
}

/// The first byte tells what speaks TLS from almost everything else, the second from the rest.
fn check_start(header: &[u8]) -> Result<(), HelloError> {
    let expected = [HANDSHAKE, 3];
    let is_tls = header.iter().zip(expected).all(|(byte, tls)| *byte == tls);
    is_tls.then_some(()).ok_or(HelloError::NotTls)
}

fn record_length(header: [u8; RECORD_HEADER]) -> Result<usize, HelloError> {
    check_start(&header)?;
    let [_, _, _, high, low] = header;
    match usize::from(u16::from_be_bytes([high, low])) {
        // It would be a way to send any number of records.
        0 => Err(HelloError::Malformed),
        length => Ok(length),
    }
}

/// The body of the hello, once all of it is there.
fn whole(message: &[u8]) -> Result<Option<&[u8]>, HelloError> {
    if message.first().is_some_and(|kind| *kind != CLIENT_HELLO) {
        return Err(HelloError::NotTls);
    }
    let Some(([_, length @ ..], body)) = message.split_first_chunk::<4>() else {
        return Ok(None);
    };
    let [high, middle, low] = *length;
    let length = u32::from_be_bytes([0, high, middle, low]) as usize;
    if length > LONGEST - 4 {
        return Err(HelloError::TooLong);
    }
    match body.len() {
        there if there < length => Ok(None),
        there if there == length => Ok(Some(body)),
        // Nothing can be said before the server has answered.
        _ => Err(HelloError::Malformed),
    }
}

/// `None` if it breaks a rule.
fn hello(body: &[u8]) -> Result<Option<ClientHello>, TooShort> {
    let mut fields = Fields(body);
    let _version_and_random = fields.take(2 + 32)?;
    let session = fields.vec8()?;
    let suites = fields.vec16()?;
    let compressions = fields.vec8()?;
    let is_well_formed = session.0.len() <= 32
        && !suites.0.is_empty()
        && suites.0.len().is_multiple_of(2)
        && !compressions.0.is_empty();
    if !is_well_formed {
        return Ok(None);
    }
    let mut names = Vec::new();
    // Before TLS 1.2 there need be no extensions.
    let mut extensions = if fields.is_empty() {
        Fields(&[])
    } else {
        fields.vec16()?
    };
    while !extensions.is_empty() {
        let kind = extensions.u16()?;
        let content = extensions.vec16()?;
        if kind == SERVER_NAME {
            names.push(content);
        }
    }
    let server_name = match names[..] {
        [] => None,
        [list] => match host_name(list)? {
            Some(name) => Some(name),
            None => return Ok(None),
        },
        // Which of them counts would be anybody's guess.
        [_, _, ..] => return Ok(None),
    };
    let hello = ClientHello { server_name };
    Ok(fields.is_empty().then_some(hello))
}

/// The one name of the list; `None` if it breaks a rule.
fn host_name(mut extension: Fields<'_>) -> Result<Option<String>, TooShort> {
    let mut list = extension.vec16()?;
    let kind = list.u8()?;
    let name = list.vec16()?;
    let is_one = kind == HOST_NAME && list.is_empty() && extension.is_empty();
    let name = std::str::from_utf8(name.0).ok();
    let name = name.filter(|name| is_one && !name.is_empty() && name.is_ascii());
    Ok(name.map(ToOwned::to_owned))
}

#[cfg(test)]
mod tests;
