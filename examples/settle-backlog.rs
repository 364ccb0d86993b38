//! Settlement of a backlog: 100,000 unknown outcomes that are due at once, beside a steady load of
//! requests. `cargo build --release && cargo run --release --example settle-backlog` prints the time
//! until all are settled, the memory, and the requests' latencies with and without the backlog.
//! Arguments: records, `concurrency`, requests in a second.

use std::error::Error;
use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

type Outcome<T> = Result<T, Box<dyn Error>>;

/// Connections that lose answers until the backlog is there.
const FILLERS: u64 = 64;
/// Connections of the steady load.
const CLIENTS: u64 = 8;
/// Length of a window of measurement.
const WINDOW: Duration = Duration::from_secs(20);

static STARTED: AtomicU64 = AtomicU64::new(0);
static LOOKS: AtomicU64 = AtomicU64::new(0);

fn main() -> Outcome<()> {
    let given: Vec<u64> =
        std::env::args().skip(1).map(|arg| arg.parse()).collect::<Result<_, _>>()?;
    let of = |at: usize, usual: u64| given.get(at).copied().unwrap_or(usual);
    let (records, concurrency, rate) = (of(0, 100_000), of(1, 4), of(2, 200));
    let folder = std::env::temp_dir().join(format!("oncegate-backlog-{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    let measured = measure(&folder, (records, concurrency, rate));
    std::fs::remove_dir_all(&folder)?;
    measured
}

fn measure(folder: &Path, (records, concurrency, rate): (u64, u64, u64)) -> Outcome<()> {
    let backend = backend()?;
    let begun = Instant::now();
    let gateway = Gateway::start(folder, backend, "outcome.on_unknown = \"hold\"")?;
    let fill = |thread: u64| -> Outcome<()> {
        let mut client = Client::connect(gateway.public)?;
        for number in (thread..records).step_by(FILLERS as usize) {
            client.post("/lost", &format!("lost-{number}"), 503)?;
        }
        Ok(())
    };
    in_threads(FILLERS, &fill)?;
    println!("{records} unknown outcomes after {} s", begun.elapsed().as_secs());
    println!("{:<34} {:>8} {:>8} {:>8}", "latency of requests (ms)", "p50", "p99", "p99.9");
    gateway.window("on_unknown = \"hold\"", rate)?;
    gateway.window("on_unknown = \"hold\"", rate)?;
    drop(gateway);

    let policy = format!(
        "outcome.on_unknown = \"probe\"\nprobe = {{ path = \"/sales/{{key}}\", min_age = \"0s\", \
         every = \"1s\", concurrency = {concurrency}, \
         executed = {{ pointer = \"/status\", equals = \"paid\" }} }}"
    );
    let gateway = Gateway::start(folder, backend, &policy)?;
    let begun = Instant::now();
    let mut windows = 0;
    loop {
        let left = gateway.unknown()?;
        if left == 0 {
            break;
        }
        windows += 1;
        gateway.window(&format!("backlog, {left} left"), rate)?;
    }
    let took = begun.elapsed().as_secs_f64();
    let looks = LOOKS.load(Ordering::Relaxed);
    println!("settled after {took:.0} s at most: {:.0} a second", records as f64 / took);
    println!("{looks} look-ups, peak of memory {} MB", gateway.peak_memory()? / 1024);
    for _ in 0..windows.min(3) {
        gateway.window("no backlog", rate)?;
    }
    Ok(())
}

/// A gateway of this build.
struct Gateway {
    child: Child,
    public: SocketAddr,
    admin: SocketAddr,
}

impl Gateway {
    fn start(folder: &Path, backend: SocketAddr, policy: &str) -> Outcome<Self> {
        let (public, admin) = (free_address()?, free_address()?);
        let mut config = format!(
            "[server]\nlisten = [\"{public}\"]\n[admin]\nlisten = \"{admin}\"\n[store.embedded]\n\
             path = \"{}/store\"\n[[upstream]]\nname = \"backend\"\nurl = \"http://{backend}\"\n",
            folder.display()
        );
        for path in ["lost", "sell"] {
            write!(
                config,
                "[[route]]\nname = \"{path}\"\nmethods = [\"POST\"]\npath = \"/{path}\"\n\
                 upstream = \"backend\"\n"
            )?;
            if path == "lost" {
                writeln!(config, "{policy}")?;
            }
        }
        let file = folder.join("oncegate.toml");
        std::fs::write(&file, config)?;
        let mut command = Command::new(binary()?);
        command.args(["run", "--config"]).arg(&file).stderr(Stdio::null()).stdout(Stdio::null());
        let gateway = Self { child: command.spawn()?, public, admin };
        let end = Instant::now() + Duration::from_secs(60);
        while !gateway.get("/readyz").is_ok_and(|text| text.starts_with("HTTP/1.1 200")) {
            if Instant::now() > end {
                return Err("the gateway did not become ready".into());
            }
            sleep(Duration::from_millis(50));
        }
        Ok(gateway)
    }

    /// Sends `rate` requests a second for a while, and prints their latencies.
    fn window(&self, name: &str, rate: u64) -> Outcome<()> {
        let all = std::sync::Mutex::new(Vec::new());
        let load = |thread: u64| -> Outcome<()> {
            let mut client = Client::connect(self.public)?;
            let pause = Duration::from_secs(1) * u32::try_from(CLIENTS)? / u32::try_from(rate)?;
            let mut next =
                Instant::now() + pause * u32::try_from(thread)? / u32::try_from(CLIENTS)?;
            let end = Instant::now() + WINDOW;
            let mut times = Vec::new();
            while next < end {
                sleep(next.saturating_duration_since(Instant::now()));
                let key = format!("sell-{}", STARTED.fetch_add(1, Ordering::Relaxed));
                client.post("/sell", &key, 200)?;
                // From the time at which the request was due: a stall counts for all it delays.
                times.push(next.elapsed());
                next += pause;
            }
            all.lock().map_err(|_| "a thread failed")?.extend(times);
            Ok(())
        };
        in_threads(CLIENTS, &load)?;
        let mut times = all.into_inner().map_err(|_| "a thread failed")?;
        times.sort_unstable();
        let at = |share: f64| {
            let last = times.len().saturating_sub(1);
            times.get((last as f64 * share) as usize).map_or(0.0, Duration::as_secs_f64) * 1e3
        };
        println!("{name:<34} {:>8.2} {:>8.2} {:>8.2}", at(0.5), at(0.99), at(0.999));
        Ok(())
    }

    /// The number of unknown outcomes.
    fn unknown(&self) -> Outcome<u64> {
        let text = self.get("/metrics")?;
        let line = text.lines().find(|line| line.starts_with("oncegate_unknown_records "));
        let number = line.and_then(|line| line.split(' ').nth(1)).ok_or("no such metric")?;
        Ok(number.parse::<f64>()? as u64)
    }

    /// The most memory that the process has had, in KiB.
    fn peak_memory(&self) -> Outcome<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).ok_or("no peak")?;
        Ok(line.trim().trim_end_matches("kB").trim().parse()?)
    }

    fn get(&self, path: &str) -> Outcome<String> {
        let mut stream = TcpStream::connect(self.admin)?;
        write!(stream, "GET {path} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n\r\n", self.admin)?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        Ok(text)
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The gateway's binary beside this example's.
fn binary() -> Outcome<PathBuf> {
    let own = std::env::current_exe()?;
    let folder = own.parent().and_then(Path::parent).ok_or("no folder")?;
    Ok(folder.join("oncegate"))
}

fn free_address() -> Outcome<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

fn in_threads(count: u64, work: &(impl Fn(u64) -> Outcome<()> + Sync)) -> Outcome<()> {
    let failed = AtomicBool::new(false);
    thread::scope(|scope| {
        for thread in 0..count {
            let failed = &failed;
            scope.spawn(move || {
                if let Err(error) = work(thread) {
                    eprintln!("{error}");
                    failed.store(true, Ordering::Relaxed);
                }
            });
        }
    });
    if failed.into_inner() { Err("a thread failed".into()) } else { Ok(()) }
}

/// A connection to the gateway.
struct Client(BufReader<TcpStream>);

impl Client {
    fn connect(to: SocketAddr) -> Outcome<Self> {
        let stream = TcpStream::connect(to)?;
        stream.set_nodelay(true)?;
        Ok(Self(BufReader::new(stream)))
    }

    fn post(&mut self, path: &str, key: &str, status: u16) -> Outcome<()> {
        let body = r#"{"amount":5}"#;
        let request = format!(
            "POST {path} HTTP/1.1\r\nhost: gateway\r\nidempotency-key: {key}\r\n\
             content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        self.0.get_mut().write_all(request.as_bytes())?;
        let (line, _) = message(&mut self.0)?.ok_or("the gateway closed the connection")?;
        match line.split(' ').nth(1) == Some(&status.to_string()) {
            true => Ok(()),
            false => Err(format!("{line} instead of {status}").into()),
        }
    }
}

/// The first line and the body of a message; `None`: the connection ended.
fn message(from: &mut BufReader<TcpStream>) -> Outcome<Option<(String, Vec<u8>)>> {
    let mut first = String::new();
    if from.read_line(&mut first)? == 0 {
        return Ok(None);
    }
    let mut length = 0;
    loop {
        let mut line = String::new();
        from.read_line(&mut line)?;
        let line = line.trim().to_ascii_lowercase();
        if line.is_empty() {
            break;
        }
        if let Some(value) = line.strip_prefix("content-length:") {
            length = value.trim().parse()?;
        }
    }
    let mut body = vec![0; length];
    from.read_exact(&mut body)?;
    Ok(Some((first.trim().to_owned(), body)))
}

/// A backend that answers 503 on `/lost`, and knows every sale.
fn backend() -> Outcome<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || serve(stream));
        }
    });
    Ok(address)
}

fn serve(stream: TcpStream) {
    let _ = stream.set_nodelay(true);
    let mut stream = BufReader::new(stream);
    while let Ok(Some((line, _))) = message(&mut stream) {
        let (status, body) = match line.split(' ').nth(1) {
            Some("/lost") => ("503 Service Unavailable", "{}"),
            Some(path) if path.starts_with("/sales/") => {
                LOOKS.fetch_add(1, Ordering::Relaxed);
                ("200 OK", r#"{"status":"paid"}"#)
            }
            _ => ("200 OK", "{}"),
        };
        let answer = format!(
            "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        if stream.get_mut().write_all(answer.as_bytes()).is_err() {
            return;
        }
    }
}
