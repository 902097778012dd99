use std::sync::Arc;

use rustls::{ClientConfig, ClientConnection, RootCertStore};

use super::*;
use crate::pki::provider;

const RANDOM: [u8; 32] = [7; 32];

/// What `openssl s_client -servername edge-1` and its kin sent, and a Go program with post-quantum keys.
const OPENSSL: &[u8] = include_bytes!("testdata/openssl-named.bin");
const OPENSSL_NAMELESS: &[u8] = include_bytes!("testdata/openssl-nameless.bin");
const GO: &[u8] = include_bytes!("testdata/go-named.bin");

fn vec8(content: &[u8]) -> Vec<u8> {
    [&[u8::try_from(content.len()).unwrap()], content].concat()
}

fn vec16(content: &[u8]) -> Vec<u8> {
    let length = u16::try_from(content.len()).unwrap().to_be_bytes();
    [&length, content].concat()
}

fn extension(kind: u16, content: &[u8]) -> Vec<u8> {
    [&kind.to_be_bytes(), &vec16(content)[..]].concat()
}

fn name(name: &[u8]) -> Vec<u8> {
    let entry = [&[HOST_NAME], &vec16(name)[..]].concat();
    extension(SERVER_NAME, &vec16(&entry))
}

fn body(extensions: &[Vec<u8>]) -> Vec<u8> {
    let mut body = [&[3, 3], &RANDOM[..], &vec8(&[9; 32])].concat();
    body.extend(vec16(&[0x13, 1]));
    body.extend(vec8(&[0]));
    body.extend(vec16(&extensions.concat()));
    body
}

fn message(body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len()).unwrap().to_be_bytes();
    [&[CLIENT_HELLO], &length[1..], body].concat()
}

fn record(fragment: &[u8]) -> Vec<u8> {
    [&[HANDSHAKE, 3, 1], &vec16(fragment)[..]].concat()
}

/// A hello in one record.
fn hello_with(extensions: &[Vec<u8>]) -> Vec<u8> {
    record(&message(&body(extensions)))
}

fn says(server_name: Option<&str>) -> Progress {
    let server_name = server_name.map(ToOwned::to_owned);
    Progress::Whole(ClientHello { server_name })
}

/// What rustls sends to that server.
fn rustls_hello(server: &'static str) -> Vec<u8> {
    let config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    let server = server.try_into().unwrap();
    let mut client = ClientConnection::new(Arc::new(config), server).unwrap();
    let mut sent = Vec::new();
    client.write_tls(&mut sent).unwrap();
    sent
}

#[test]
fn hellos_of_real_clients_are_read() {
    assert_eq!(read(OPENSSL), Ok(says(Some("edge-1"))));
    assert_eq!(read(OPENSSL_NAMELESS), Ok(says(None)));
    assert!(GO.len() > 1400, "with the keys of X25519MLKEM768");
    assert_eq!(read(GO), Ok(says(Some("edge-1"))));
    assert_eq!(
        read(&rustls_hello("edge-1.example")),
        Ok(says(Some("edge-1.example")))
    );
    assert_eq!(read(&rustls_hello("10.78.0.11")), Ok(says(None)));
}

#[test]
fn wherever_it_is_cut_the_hello_is_the_same_once_it_is_whole() {
    for sent in [
        OPENSSL,
        GO,
        &rustls_hello("edge-1"),
        &hello_with(&[name(b"edge-1")]),
    ] {
        for cut in 0..sent.len() {
            let Ok(Progress::Needs(needed)) = read(&sent[..cut]) else {
                panic!("{:?} after {cut} bytes", read(&sent[..cut]));
            };
            assert!(cut < needed && needed <= sent.len(), "{needed} after {cut}");
        }
        assert_eq!(read(sent), Ok(says(Some("edge-1"))));
        // What a client sends after its hello is not looked at: early data of TLS 1.3.
        assert_eq!(
            read(&[sent, &[23, 3, 3, 0]].concat()),
            Ok(says(Some("edge-1")))
        );
    }
}

#[test]
fn a_hello_in_several_records_is_one_hello_in_whatever_pieces_they_come() {
    let message = message(&body(&[name(b"edge-1"), extension(0xff, &[0; 1000])]));
    for size in [20, 100, 1000, message.len()] {
        let records: Vec<_> = message.chunks(size).map(record).collect();
        let sent = records.concat();
        let mut needed = 0;
        for cut in 0..sent.len() {
            match read(&sent[..cut]) {
                Ok(Progress::Needs(more)) => needed = more,
                other => panic!("{other:?} after {cut} bytes of {size}"),
            }
        }
        assert_eq!(needed, sent.len());
        assert_eq!(
            read(&sent),
            Ok(says(Some("edge-1"))),
            "in records of {size}"
        );
    }
}

#[test]
fn a_hello_may_be_as_long_as_a_record_and_no_longer() {
    let long = |padding: usize| hello_with(&[name(b"edge-1"), extension(21, &vec![0; padding])]);
    let most = LONGEST - (long(0).len() - RECORD_HEADER);
    let longest = long(most);
    assert_eq!(longest.len(), RECORD_HEADER + LONGEST);
    assert_eq!(read(&longest), Ok(says(Some("edge-1"))));
    // What is too long is known by its head.
    assert_eq!(read(&long(most + 1)[..9]), Err(HelloError::TooLong));
    let in_records = |body: &[u8]| {
        message(body)
            .chunks(LONGEST / 2)
            .map(record)
            .collect::<Vec<_>>()
    };
    let too_long = in_records(&body(&[extension(21, &vec![0; most + 100])]));
    assert_eq!(read(&too_long[0]), Err(HelloError::TooLong));
    assert_eq!(
        read(&record(&[CLIENT_HELLO, 0xff, 0xff, 0xff])),
        Err(HelloError::TooLong)
    );
    let crumbs: Vec<_> = message(&body(&[]))
        .iter()
        .map(|byte| record(&[*byte]))
        .collect();
    let needed = crumbs.len() * (RECORD_HEADER + 1);
    assert!(crumbs.len() > MOST_RECORDS && needed < MOST_BYTES);
    assert_eq!(read(&crumbs.concat()), Err(HelloError::TooLong));
}

#[test]
fn what_is_no_tls_is_known_by_its_first_bytes() {
    for sent in [
        &b"GET / HTTP/1.1\r\n"[..],
        b"G",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        &[0],
        // The hello of SSL 2.0, which modern servers do not know either.
        &[0x80, 0x2e, 1, 3, 1],
        // An alert, data; TLS of a version that there is not.
        &[21, 3, 3, 0, 2, 1, 0],
        &[23, 3],
        &[HANDSHAKE, 2],
        // Another message of a handshake.
        &record(&[2, 0, 0, 1, 0]),
    ] {
        assert_eq!(read(sent), Err(HelloError::NotTls), "{sent:x?}");
    }
    assert_eq!(read(&[]), Ok(Progress::Needs(RECORD_HEADER)));
    assert_eq!(read(&[HANDSHAKE]), Ok(Progress::Needs(RECORD_HEADER)));
}

#[test]
fn a_hello_that_breaks_the_rules_is_refused() {
    let whole = body(&[name(b"edge-1")]);
    let twice = [HOST_NAME, 0, 1, b'a', HOST_NAME, 0, 1, b'b'];
    let trailing = |list: &[u8]| extension(SERVER_NAME, &[&vec16(list)[..], &[0]].concat());
    for (what, sent) in [
        ("an empty record", record(&[])),
        (
            "bytes after the hello",
            record(&[&message(&whole)[..], &[0]].concat()),
        ),
        (
            "bytes after the extensions",
            record(&message(&[&whole[..], &[0]].concat())),
        ),
        (
            "half of it, said to be whole",
            record(&message(&whole[..whole.len() / 2])),
        ),
        (
            "a session id of 33 bytes",
            record(&message(
                &[
                    &[3, 3],
                    &RANDOM[..],
                    &vec8(&[0; 33]),
                    &vec16(&[0, 1]),
                    &vec8(&[0]),
                ]
                .concat(),
            )),
        ),
        (
            "no cipher suites",
            record(&message(
                &[&[3, 3], &RANDOM[..], &vec8(&[]), &vec16(&[]), &vec8(&[0])].concat(),
            )),
        ),
        (
            "half a cipher suite",
            record(&message(
                &[
                    &[3, 3],
                    &RANDOM[..],
                    &vec8(&[]),
                    &vec16(&[1; 3]),
                    &vec8(&[0]),
                ]
                .concat(),
            )),
        ),
        (
            "no compression",
            record(&message(
                &[
                    &[3, 3],
                    &RANDOM[..],
                    &vec8(&[]),
                    &vec16(&[0, 1]),
                    &vec8(&[]),
                ]
                .concat(),
            )),
        ),
        ("the extension twice", hello_with(&[name(b"a"), name(b"b")])),
        (
            "two names",
            hello_with(&[extension(SERVER_NAME, &vec16(&twice))]),
        ),
        (
            "no name",
            hello_with(&[extension(SERVER_NAME, &vec16(&[]))]),
        ),
        ("an empty name", hello_with(&[name(b"")])),
        (
            "an empty extension",
            hello_with(&[extension(SERVER_NAME, &[])]),
        ),
        (
            "another kind of name",
            hello_with(&[extension(SERVER_NAME, &vec16(&[1, 0, 1, b'a']))]),
        ),
        (
            "bytes after the names",
            hello_with(&[trailing(&twice[..4])]),
        ),
        (
            "a name that is no ASCII",
            hello_with(&[name("größer".as_bytes())]),
        ),
        ("a name that is no text", hello_with(&[name(&[0xff])])),
    ] {
        assert_eq!(read(&sent), Err(HelloError::Malformed), "{what}");
    }
    // Old clients have no extensions.
    let bare = whole[..whole.len() - 2 - name(b"edge-1").len()].to_vec();
    assert_eq!(read(&record(&message(&bare))), Ok(says(None)));
    assert_eq!(read(&hello_with(&[])), Ok(says(None)));
}

/// Whatever comes, it is read without a panic, and asks for no more than there is room for.
#[test]
fn changed_bytes_are_at_worst_refused() {
    for sent in [OPENSSL, GO] {
        for at in 0..sent.len() {
            for change in [0, 1, 0x7f, 0x80, 0xff] {
                let mut changed = sent.to_vec();
                changed[at] = change;
                if let Ok(Progress::Needs(needed)) = read(&changed) {
                    assert!(needed > changed.len() && needed <= MOST_BYTES);
                }
            }
        }
    }
}
