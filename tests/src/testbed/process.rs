//! Commands and HTTP requests inside a place.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::Testbed;
use super::place::Place;

const HTTP_TIMEOUT: Duration = Duration::from_secs(5);

/// A command that has ended.
#[derive(Debug, Clone)]
pub struct Finished {
    /// Its exit code, `None` if a signal ended it.
    pub code: Option<i32>,
    /// What it wrote to standard output.
    pub stdout: String,
    /// What it wrote to standard error.
    pub stderr: String,
}

impl Finished {
    /// The standard output of a command that must succeed.
    pub fn success(self, what: &str) -> Result<String> {
        if self.code != Some(0) {
            bail!("{what} ended with {:?}: {}", self.code, self.stderr.trim());
        }
        Ok(self.stdout)
    }
}

/// An answer to an HTTP request.
#[derive(Debug, Clone)]
pub struct HttpAnswer {
    /// The status code.
    pub status: u16,
    /// All header lines, lower case.
    pub headers: String,
    /// The body.
    pub body: String,
}

pub(super) fn run(bed: &Testbed, place: Place, command: &[&str], stdin: &str) -> Result<Finished> {
    let command: Vec<String> = command.iter().map(|word| (*word).to_owned()).collect();
    let stdin = stdin.to_owned();
    let shown = command.join(" ");
    let (child, stdin) = bed.in_place(place, move || -> Result<_> {
        let (program, arguments) = command.split_first().context("empty command")?;
        let child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("start {program}"))?;
        Ok((child, stdin))
    })??;
    let mut child = child;
    let input = child.stdin.take();
    let writer = std::thread::spawn(move || -> std::io::Result<()> {
        input.map_or(Ok(()), |mut input| input.write_all(stdin.as_bytes()))
    });
    let output = child
        .wait_with_output()
        .with_context(|| format!("run {shown}"))?;
    // A command that ended without reading all has told its reason in `output`.
    drop(writer.join());
    Ok(Finished {
        code: output.status.code(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}

pub(super) fn http_get(
    bed: &Testbed,
    from: Place,
    server: SocketAddr,
    path: &str,
) -> Result<HttpAnswer> {
    let path = path.to_owned();
    bed.in_place(from, move || http_get_here(server, &path))?
}

/// Fetches `path` by HTTP/1.1 from where the calling thread is.
///
/// # Errors
/// Nobody listens, the answer takes longer than five seconds, or it is not HTTP.
pub fn http_get_here(server: SocketAddr, path: &str) -> Result<HttpAnswer> {
    let mut stream = TcpStream::connect_timeout(&server, HTTP_TIMEOUT)?;
    stream.set_read_timeout(Some(HTTP_TIMEOUT))?;
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: {server}\r\nConnection: close\r\n\r\n"
    )?;
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    let (head, body) = text
        .split_once("\r\n\r\n")
        .context("no end of HTTP headers")?;
    let status = head.split(' ').nth(1).context("no HTTP status")?.parse()?;
    let headers = head.to_ascii_lowercase();
    let chunked = headers.contains("transfer-encoding: chunked");
    let body = if chunked {
        unchunk(body)?
    } else {
        body.to_owned()
    };
    Ok(HttpAnswer {
        status,
        headers,
        body,
    })
}

fn unchunk(mut rest: &str) -> Result<String> {
    let mut body = String::new();
    loop {
        let (length, tail) = rest.split_once("\r\n").context("chunk without length")?;
        let length = usize::from_str_radix(length.trim(), 16)?;
        if length == 0 {
            return Ok(body);
        }
        body.push_str(tail.get(..length).context("short chunk")?);
        rest = tail
            .get(length..)
            .unwrap_or_default()
            .trim_start_matches("\r\n");
    }
}
