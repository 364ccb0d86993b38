//! The servers side by side: how each is configured and started.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use crate::Failure;
use crate::cases::Target;
use crate::process::{Server, free_addresses};
use crate::tls;

const NGINX_CONF: &str = include_str!("../peers/nginx.conf");
const ONCEGATE_CONF: &str = include_str!("../oncegate.toml");

/// Where and how servers are started.
pub(crate) struct Place {
    /// Configuration, logs, caches and stores go below this directory.
    pub(crate) tmp: PathBuf,
    /// The file that collects process ids for the calling script.
    pub(crate) pids: PathBuf,
    /// The directory with the peers' files.
    pub(crate) bench: PathBuf,
    /// The cores of every measured server.
    pub(crate) cores: Vec<usize>,
    /// The backend behind them.
    pub(crate) backend: SocketAddr,
}

impl Place {
    pub(crate) fn start(&self, name: &str, command: &[&str]) -> Result<Server, Failure> {
        let command: Vec<String> = command.iter().map(|&word| word.to_owned()).collect();
        Server::start(name, &command, &self.cores, &self.tmp, &self.pids)
    }

    pub(crate) fn path(&self, name: &str) -> String {
        self.tmp.join(name).to_string_lossy().into_owned()
    }
}

/// The peers, running.
pub(crate) struct Peers {
    nginx: Server,
    redis: Server,
    hyper_proxy: Server,
    hyper_replay: Server,
    addresses: Vec<(Target, SocketAddr)>,
}

impl Peers {
    pub(crate) fn start(place: &Place) -> Result<Self, Failure> {
        let free = free_addresses(7)?;
        let [proxy, cache, secure, naive, carry, repeat, redis_at] = free[..] else {
            unreachable!()
        };
        let redis_port = redis_at.port().to_string();
        let redis = ["redis-server", "--bind", "127.0.0.1", "--port", &redis_port];
        let no_disk = ["--save", "", "--appendonly", "no", "--dir", &place.path("")];
        let mut redis = place.start("redis", &[&redis[..], &no_disk[..]].concat())?;
        redis.wait_for(redis_at)?;
        let conf = NGINX_CONF
            .replace("@TMP@", &place.path(""))
            .replace("@WORKERS@", &place.cores.len().to_string())
            .replace("@LUA@", &place.bench.join("peers/naive.lua").to_string_lossy())
            .replace("@BACKEND@", &place.backend.to_string())
            .replace("@REDIS_PORT@", &redis_port)
            .replace("@PROXY@", &proxy.to_string())
            .replace("@CACHE@", &cache.to_string())
            .replace("@SECURE@", &secure.to_string())
            .replace("@NAIVE@", &naive.to_string());
        fs::write(place.path("nginx.conf"), conf)?;
        let error_log = place.path("nginx-error.log");
        let nginx = ["nginx", "-e", &error_log, "-c", &place.path("nginx.conf")];
        let mut nginx = place.start("nginx", &nginx)?;
        nginx.wait_for(naive)?;
        let own = std::env::current_exe()?.to_string_lossy().into_owned();
        let (carry_at, repeat_at) = (carry.to_string(), repeat.to_string());
        let backend = place.backend.to_string();
        let command = [&own, "hyper-proxy", "--listen", &carry_at, "--backend", &backend];
        let mut hyper_proxy = place.start("hyper-proxy", &command)?;
        hyper_proxy.wait_for(carry)?;
        let command = [&own, "hyper-replay", "--listen", &repeat_at];
        let mut hyper_replay = place.start("hyper-replay", &command)?;
        hyper_replay.wait_for(repeat)?;
        let addresses = vec![
            (Target::NginxProxy, proxy),
            (Target::NginxCache, cache),
            (Target::NginxTls, secure),
            (Target::NginxNaive, naive),
            (Target::HyperProxy, carry),
            (Target::HyperReplay, repeat),
        ];
        Ok(Self { nginx, redis, hyper_proxy, hyper_replay, addresses })
    }

    /// Where nginx + Lua + Redis listens, and the processes of nginx and of Redis.
    pub(crate) fn naive(&self) -> Option<(SocketAddr, u32, u32)> {
        let address = self.find(Target::NginxNaive)?.0;
        Some((address, self.nginx.pid(), self.redis.pid()))
    }

    /// Where a peer listens, and the processes whose CPU counts.
    pub(crate) fn find(&self, target: Target) -> Option<(SocketAddr, Vec<u32>)> {
        let address = self.addresses.iter().find(|(found, _)| *found == target)?.1;
        let pids = match target {
            Target::NginxProxy | Target::NginxCache | Target::NginxTls => vec![self.nginx.pid()],
            Target::NginxNaive => vec![self.nginx.pid(), self.redis.pid()],
            Target::HyperProxy => vec![self.hyper_proxy.pid()],
            Target::HyperReplay => vec![self.hyper_replay.pid()],
            Target::Oncegate(_) => return None,
        };
        Some((address, pids))
    }
}

/// The gateway, running.
pub(crate) struct Gateway {
    pub(crate) server: Server,
    pub(crate) address: SocketAddr,
}

impl Gateway {
    /// Starts a gateway on the store of this name below the temporary directory; on an existing one it
    /// finds the records of the run before.
    pub(crate) fn start(place: &Place, binary: &Path, store: &str) -> Result<Self, Failure> {
        let table = format!("[store.embedded]\npath = \"{}\"", place.path(store));
        Self::start_with(place, binary, &format!("oncegate-{store}"), &table, "")
    }

    /// A start with TLS on the listener; otherwise as [`Self::start`].
    pub(crate) fn start_secure(place: &Place, binary: &Path, store: &str) -> Result<Self, Failure> {
        let table = format!("[store.embedded]\npath = \"{}\"", place.path(store));
        let tls = format!(
            "tls = {{ cert = \"{}\", key = \"{}\" }}",
            place.path(tls::CERT),
            place.path(tls::KEY)
        );
        Self::start_with(place, binary, &format!("oncegate-{store}"), &table, &tls)
    }

    /// Starts a gateway of this name on the store that a table of the configuration names.
    pub(crate) fn start_on(
        place: &Place,
        binary: &Path,
        name: &str,
        store: &str,
    ) -> Result<Self, Failure> {
        Self::start_with(place, binary, name, store, "")
    }

    fn start_with(
        place: &Place,
        binary: &Path,
        name: &str,
        store: &str,
        tls: &str,
    ) -> Result<Self, Failure> {
        let free = free_addresses(2)?;
        let conf = ONCEGATE_CONF
            .replace("@LISTEN@", &free[0].to_string())
            .replace("@ADMIN@", &free[1].to_string())
            .replace("@STORE@", store)
            .replace("@TLS@", tls)
            .replace("@BACKEND@", &place.backend.to_string());
        let file = place.path(&format!("{name}.toml"));
        fs::write(&file, conf)?;
        let command = [&binary.to_string_lossy(), "run", "--config", &file];
        let mut server = place.start(name, &command)?;
        server.wait_for(free[0])?;
        Ok(Self { server, address: free[0] })
    }
}
