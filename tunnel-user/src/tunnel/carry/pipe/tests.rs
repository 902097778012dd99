use futures_util::FutureExt as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::*;

const MUCH: usize = 100_000;
const LANE: usize = 16 * 1024;

#[tokio::test]
async fn bytes_pass_both_ways_in_order_however_many() {
    let (pipe, io) = pipe(LANE);
    let sent: Vec<u8> = (0..MUCH).map(|i| u8::try_from(i % 251).unwrap()).collect();
    let (mut reading, mut writing) = tokio::io::split(io);
    let echo = async {
        let mut buffer = BytesMut::with_capacity(4096);
        loop {
            buffer.clear();
            pipe.readable().await.unwrap();
            if pipe.try_read(&mut buffer).unwrap() == 0 {
                return pipe.finish().unwrap();
            }
            let mut left = &buffer[..];
            while !left.is_empty() {
                pipe.writable().await.unwrap();
                left = &left[pipe.try_write(left).unwrap()..];
            }
        }
    };
    let write = async {
        writing.write_all(&sent).await.unwrap();
        writing.shutdown().await.unwrap();
    };
    let mut heard = Vec::new();
    let ((), (), read) = tokio::join!(echo, write, reading.read_to_end(&mut heard));
    assert_eq!((read.unwrap(), heard == sent), (MUCH, true));
}

#[tokio::test]
async fn a_reader_that_has_stopped_holds_its_writer_up() {
    let (pipe, mut io) = pipe(LANE);
    let mut written = 0;
    while let Ok(count) = pipe.try_write(&[0; 1000]) {
        written += count;
    }
    assert!(written < MUCH);
    assert!(pipe.writable().now_or_never().is_none());
    io.read_u8().await.unwrap();
    pipe.writable().await.unwrap();
    assert_eq!(pipe.try_write(&[0; 1000]).unwrap(), 1);
}

#[tokio::test]
async fn what_was_not_ended_in_order_is_reset_after_what_had_been_said() {
    let (pipe, mut io) = pipe(LANE);
    pipe.try_write(b"hal").unwrap();
    drop(pipe);
    let mut heard = Vec::new();
    let cut = io.read_to_end(&mut heard).await.unwrap_err();
    assert_eq!(
        (cut.kind(), heard.as_slice()),
        (io::ErrorKind::ConnectionReset, &b"hal"[..])
    );
    assert!(io.write_all(b"x").await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_program_that_goes_away_resets_it_unless_both_directions_have_ended() {
    let (pipe_1, io) = pipe(LANE);
    assert!(pipe_1.until_reset().now_or_never().is_none());
    drop(io);
    pipe_1.until_reset().await;
    let mut buffer = BytesMut::with_capacity(1);
    let reset = pipe_1.try_read(&mut buffer).unwrap_err();
    assert_eq!(reset.kind(), io::ErrorKind::ConnectionReset);

    let (pipe_2, mut io) = pipe(LANE);
    io.shutdown().await.unwrap();
    drop(io);
    assert_eq!(pipe_2.try_read(&mut buffer).unwrap(), 0);
    assert!(pipe_2.until_reset().now_or_never().is_none());
    // Nobody will read the answer, and there is none.
    pipe_2.until_reset().await;
    assert!(pipe_2.try_write(b"x").is_err());

    let (pipe_3, mut io) = pipe(LANE);
    pipe_3.finish().unwrap();
    io.shutdown().await.unwrap();
    drop(io);
    assert!(pipe_3.until_reset().now_or_never().is_none());
}
