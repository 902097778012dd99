//! What an open connection does.

use std::{
    io::{Read as _, Write as _},
    net::{Shutdown, TcpStream},
    thread,
    time::Instant,
};

use anyhow::{Context as _, Result, ensure};

use crate::worker::{Measured, nanoseconds};

const CHUNK: usize = 64 * 1024;

/// One transfer; ends when the server has read the last byte.
pub(crate) fn transfer(
    mut client: TcpStream,
    mut server: TcpStream,
    bytes: u64,
) -> Result<Measured> {
    thread::scope(|scope| {
        let started = Instant::now();
        let reader = scope.spawn(move || -> Result<(u64, Instant)> {
            let (mut buffer, mut total) = (vec![0; 4 * CHUNK], 0);
            loop {
                match server.read(&mut buffer)? {
                    0 => return Ok((total, Instant::now())),
                    count => total += count as u64,
                }
            }
        });
        let chunk = vec![0x2a; CHUNK];
        let mut left = bytes;
        while left > 0 {
            let size = usize::try_from(left).map_or(CHUNK, |left| left.min(CHUNK));
            client.write_all(&chunk[..size])?;
            left -= size as u64;
        }
        client.shutdown(Shutdown::Write)?;
        let (total, ended) = reader.join().ok().context("the reader panicked")??;
        ensure!(total == bytes, "{total} of {bytes} bytes arrived");
        Ok(Measured {
            ns: nanoseconds(ended - started),
            ..Measured::default()
        })
    })
}

/// Round trips of one byte, the server on a thread of its own.
pub(crate) fn ping_pong(
    mut client: TcpStream,
    mut server: TcpStream,
    count: usize,
) -> Result<Measured> {
    thread::scope(|scope| {
        let echo = scope.spawn(move || -> Result<()> {
            let mut byte = [0];
            while server.read(&mut byte)? == 1 {
                server.write_all(&byte)?;
            }
            Ok(())
        });
        let mut byte = [1];
        let started = Instant::now();
        for _ in 0..count {
            client.write_all(&byte)?;
            client.read_exact(&mut byte)?;
        }
        let elapsed = nanoseconds(started.elapsed());
        client.shutdown(Shutdown::Write)?;
        echo.join().ok().context("the echo panicked")??;
        #[expect(clippy::cast_precision_loss, reason = "a count of some thousands")]
        Ok(Measured {
            ns: elapsed / count as f64,
            ..Measured::default()
        })
    })
}
