"""The parts of deploy/compose.yaml at work without Docker, in a network and with files of their own.

    unshare --net --mount --pid --fork --kill-child parts.py BINARY

Names of services lead to addresses of the loopback interface, and the files that the parts mount are
where they look for them. Commands, environment and health checks are those of the compose file. Debian's
PostgreSQL and Prometheus take the places of the images; Grafana is no package of Debian's, and is
left out.
"""

import glob
import http.client
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.parse

import yaml

PATIENCE = 60
BINARY = sys.argv[1]
DEPLOY = os.path.abspath("deploy")

with open(f"{DEPLOY}/compose.yaml") as file:
    SERVICES = yaml.safe_load(file)["services"]
WORK = tempfile.mkdtemp()
ADDRESSES = {name: f"127.0.1.{number}" for number, name in enumerate(SERVICES, start=1)}


def run(*command, **options):
    subprocess.run(command, check=True, **options)


def start(name, *command, **options):
    """Starts a part; its output goes where a failure shows it."""
    log = open(f"{WORK}/{name}.log", "wb")
    return subprocess.Popen(command, stdout=log, stderr=log, **options)


def until(what, attempt):
    end = time.monotonic() + PATIENCE
    while True:
        try:
            last = attempt()
            if last:
                return
        except OSError as error:
            last = error
        assert time.monotonic() < end, f"{what}: {last}"
        time.sleep(0.1)


def ask(address, method, path, body=None, headers={}):
    connection = http.client.HTTPConnection(address, timeout=PATIENCE)
    connection.request(method, path, body, headers)
    answer = connection.getresponse()
    return answer.status, answer.getheader("Idempotency-Status"), answer.read()


def mounts(name):
    """The files of the service, in the places where its image has them."""
    for volume in SERVICES[name].get("volumes", []):
        source, target = volume.split(":")[:2]
        if source.startswith("./"):
            source = os.path.join(DEPLOY, source)
            # The copy of /etc takes what belongs there; other files stand in the work directory.
            target = target if target.startswith("/etc/") else WORK + target
            os.makedirs(os.path.dirname(target), exist_ok=True)
            copy = shutil.copytree if os.path.isdir(source) else shutil.copy
            copy(source, target)


def database():
    """PostgreSQL with the user of the compose file."""
    environment = SERVICES["postgres"]["environment"]
    programs = sorted(glob.glob("/usr/lib/postgresql/*/bin"))[-1]
    data = f"{WORK}/data"
    os.mkdir(data)
    shutil.chown(data, "postgres", "postgres")
    os.chmod(WORK, 0o755)
    with open(f"{WORK}/password", "w") as file:
        file.write(environment["POSTGRES_PASSWORD"])
    owner = ("runuser", "-u", "postgres", "--")
    run(*owner, f"{programs}/initdb", "--no-sync", "-D", data, "-U", environment["POSTGRES_USER"],
        f"--pwfile={WORK}/password", "--auth=scram-sha-256", stdout=subprocess.DEVNULL)
    server = start("postgres", *owner, f"{programs}/postgres", "-D", data, "-c", f"unix_socket_directories={data}",
                   "-c", f"listen_addresses={ADDRESSES['postgres']}")
    test = SERVICES["postgres"]["healthcheck"]["test"]
    assert test[0] == "CMD", test
    until("PostgreSQL", lambda: subprocess.run([*test[1:], "-h", "postgres"], stdout=subprocess.DEVNULL).returncode == 0)
    # The image makes a database of the user's name.
    run("psql", "-q", "-h", "postgres", "-U", environment["POSTGRES_USER"], "-d", "postgres", "-c",
        f"CREATE DATABASE {environment['POSTGRES_USER']}", env={**os.environ, "PGPASSWORD": environment["POSTGRES_PASSWORD"]})
    return server


def main():
    run("ip", "link", "set", "lo", "up")
    run("cp", "-a", "/etc", f"{WORK}/etc")
    run("mount", "--bind", f"{WORK}/etc", "/etc")
    shutil.rmtree("/etc/prometheus", ignore_errors=True)
    with open("/etc/hosts", "w") as file:
        file.write("127.0.0.1 localhost\n" + "".join(f"{address} {name}\n" for name, address in ADDRESSES.items()))
    for name in ["oncegate", "backend", "prometheus"]:
        mounts(name)

    database()
    command = SERVICES["backend"]["command"]
    start("backend", command[0], *(f"{WORK}{argument}" for argument in command[1:]))
    until("the backend", lambda: socket.create_connection(("backend", 9000), 1))

    service = SERVICES["oncegate"]
    gateway = start("oncegate", BINARY, *service["command"], env={**os.environ, **service["environment"]})
    health = [BINARY, "health", "--config", service["command"][-1]]
    healthy = lambda: subprocess.run(health, env={**os.environ, **service["environment"]},
                                     stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode == 0
    until("the gateway", healthy)

    def redeem(key, body=b'{"code":"A"}'):
        headers = {"Idempotency-Key": key, "Content-Type": "application/json", "Authorization": "Bearer till"}
        return ask("oncegate:8080", "POST", "/redeem", body, headers)

    first, again = redeem("one"), redeem("one")
    assert first[:2] == (200, "executed") and again[:2] == (200, "replayed"), (first, again)
    assert first[2] == again[2], (first, again)
    lost = redeem("two", b'{"code":"lose"}')
    assert lost[:2] == (502, "unknown"), lost
    assert redeem("three")[2] != first[2]

    program = ("prometheus", "--config.file=/etc/prometheus/prometheus.yml", f"--storage.tsdb.path={WORK}/series",
               # The gateway's own port is taken on every address of this network.
               "--web.listen-address=prometheus:9091")
    start("prometheus", *program)

    def query(expression):
        path = "/api/v1/query?" + urllib.parse.urlencode({"query": expression})
        status, _, body = ask("prometheus:9091", "GET", path)
        return status == 200 and json.loads(body)["data"]["result"]

    until("Prometheus scrapes the gateway", lambda: query('up{job="oncegate"} == 1'))
    until("the calls are counted", lambda: query('sum(oncegate_requests_total{route="redeem"}) >= 4'))
    groups = json.loads(ask("prometheus:9091", "GET", "/api/v1/rules")[2])["data"]["groups"]
    alerts = [rule["name"] for group in groups for rule in group["rules"] if rule["type"] == "alerting"]
    assert len(alerts) >= 10, alerts

    # `docker compose stop`, and a start: the key is still known.
    gateway.terminate()
    assert gateway.wait(PATIENCE) == 0, gateway.returncode
    gateway = start("oncegate", BINARY, *service["command"], env={**os.environ, **service["environment"]})
    until("the gateway again", healthy)
    assert redeem("one")[:2] == (200, "replayed")
    gateway.terminate()
    assert gateway.wait(PATIENCE) == 0, gateway.returncode


try:
    main()
except BaseException:
    for log in sorted(glob.glob(f"{WORK}/*.log")):
        with open(log, errors="replace") as file:
            print(f"== {log}\n{file.read()[-4000:]}", file=sys.stderr)
    raise
finally:
    # What was started ends with this process: it is the first of its own process namespace.
    run("umount", "/etc")
    shutil.rmtree(WORK, ignore_errors=True)
