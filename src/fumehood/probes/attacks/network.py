"""Attacks over the network: the host's own ports in every spelling, other sockets of the host's, and the outside."""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import struct
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from ..host_side import listening, nobody_came
from ..suite import Fell, LeftOut, Suite, holds, one_of, same

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ..target import Target

SUITE = Suite("network")


def _port(server: socket.socket) -> int:
    return int(server.getsockname()[1])


@SUITE.probe_each(
    "P85",
    {host: host for host in ("127.0.0.1", "localhost", "0.0.0.0", "127.1", "2130706433", "0x7f.1", "0177.0.0.1", "127.255.255.254",
                             "::1", "::", "::ffff:127.0.0.1", "0:0:0:0:0:0:0:1", "::ffff:7f00:1")},
    tried="connect to a port of the host's at {}", expected="nobody comes", wall="network",
)  # fmt: skip
def a_port_of_the_hosts_is_out_of_reach(target: Target, host: str) -> None:
    with listening() as server:
        result = target.run(
            f"print(tried(lambda: socket.create_connection(({host!r}, {_port(server)}), timeout=2).sendall(b'x')))"
        )
        nobody_came(server)
    holds(result.stdout != "done\n", "the program could connect")


@SUITE.probe("P85", tried="connect to a port of the host's at the address of its network", expected="nobody comes", wall="network")  # fmt: skip
def a_port_at_the_hosts_own_address_is_out_of_reach(target: Target) -> None:
    address = _own_address()
    with listening() as server:
        result = target.run(
            f"print(tried(lambda: socket.create_connection(({address!r}, {_port(server)}), timeout=2)))"
        )
        nobody_came(server)
    same(result.stdout, "ENETUNREACH\n")


def _own_address() -> str:
    # A connected datagram socket sends nothing: only the route is looked up.
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        try:
            asking.connect(("198.51.100.1", 53))
        except OSError as error:
            raise LeftOut("this host has no route to anywhere") from error
        return str(asking.getsockname()[0])


@SUITE.probe("P85", tried="send data to a port of the host's with the first packet", expected="nobody comes", wall="network")  # fmt: skip
def a_port_of_the_hosts_gets_no_fast_open(target: Target) -> None:
    with listening() as server:
        target.run(f"socket.socket().sendto(b'x', 0x20000000, ('127.0.0.1', {_port(server)}))")
        nobody_came(server)


@SUITE.probe_each(
    "P85",
    {
        "127.0.0.1": (socket.AF_INET, "127.0.0.1"), "::1": (socket.AF_INET6, "::1"),
        "the address of everybody, 127.255.255.255": (socket.AF_INET, "127.255.255.255"),
        "0.0.0.0": (socket.AF_INET, "0.0.0.0"),
    },
    tried="send a packet to the host at {}", expected="it does not arrive", wall="network",
)  # fmt: skip
def a_packet_to_the_host_does_not_arrive(target: Target, family: int, address: str) -> None:
    with _receiving(family) as receiver:
        target.run(f"""
            sender = socket.socket({int(family)}, socket.SOCK_DGRAM)
            sender.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
            sender.sendto(b'x', ({address!r}, {_port(receiver)}))
        """)
        _nothing_came(receiver)


@SUITE.probe("P85", tried="send a packet to a group that the host listens to", expected="it does not arrive", wall="network")  # fmt: skip
def a_packet_to_a_group_does_not_arrive(target: Target) -> None:
    group, mine = socket.inet_aton("239.255.77.77"), socket.inet_aton("127.0.0.1")
    with _receiving(socket.AF_INET) as receiver:
        receiver.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, group + mine)
        target.run(f"""
            sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            sender.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton("127.0.0.1"))
            sender.sendto(b'x', ("239.255.77.77", {_port(receiver)}))
        """)
        _nothing_came(receiver)


@contextlib.contextmanager
def _receiving(family: int) -> Iterator[socket.socket]:
    """Yield a datagram socket of the host's on every address of a family."""
    with socket.socket(family, socket.SOCK_DGRAM) as receiver:
        try:
            receiver.bind(("", 0))
        except OSError as error:
            raise LeftOut("this host lacks that family of addresses") from error
        receiver.settimeout(0.05)
        yield receiver


def _nothing_came(receiver: socket.socket) -> None:
    try:
        receiver.recv(10)
    except TimeoutError:
        return
    raise Fell("the packet arrived")


@SUITE.probe("P84", tried="look at its network", expected="another one than the host's, with lo alone", wall="net-namespace")  # fmt: skip
def the_network_is_another_one_and_holds_only_lo(target: Target) -> None:
    result = target.run("""
        print(os.readlink('/proc/self/ns/net'))
        print(sorted(line.split(':')[0].strip() for line in open('/proc/self/net/dev') if ':' in line))
    """)
    same(result.stdout.splitlines()[1:], ["['lo']"])
    holds(str(Path("/proc/self/ns/net").readlink()) not in result.stdout, "it is the host's network")


@SUITE.probe(
    "P84",
    tried="ask by ioctl for interfaces with an address",
    expected="lo alone",
    wall="net-namespace",
)
def no_interface_of_the_hosts_is_listed(target: Target) -> None:
    _hosts_interface()
    result = target.run("""
        import array, struct
        place = array.array("B", bytes(4096))
        query = array.array("B", struct.pack("iL", 4096, place.buffer_info()[0]))
        import fcntl
        fcntl.ioctl(socket.socket(), 0x8912, query)
        length = struct.unpack("iL", query.tobytes())[0]
        print(sorted({place.tobytes()[at:at + 16].rstrip(bytes(1)).split(bytes(1))[0].decode() for at in range(0, length, 40)} - {"lo"}))
    """)
    same(result.stdout, "[]\n")


@SUITE.probe("P70", tried="bind a socket to the host's network card", expected="ENODEV", wall="net-namespace")
def the_hosts_card_cannot_be_bound(target: Target) -> None:
    name = _hosts_interface().encode()
    result = target.run(f"print(tried(lambda: socket.socket().setsockopt(socket.SOL_SOCKET, 25, {name!r})))")
    one_of(result.stdout, ("ENODEV\n", "EPERM\n"))


def _hosts_interface() -> str:
    names = [name for _number, name in socket.if_nameindex() if name != "lo"]
    if not names:
        raise LeftOut("this host has no network card")
    return names[0]


@SUITE.probe_each(
    "P84",
    {
        "the ports of TCP": ("tcp6", lambda server: f":{_port(server):04X} "),
        "what is sent where": ("route", lambda _server: "\t00000000\t"),
    },
    tried="read in /proc of the host's network: {}", expected="not the host's", wall="net-namespace",
)  # fmt: skip
def the_hosts_network_is_not_told(target: Target, name: str, sought: Callable[[socket.socket], str]) -> None:
    with listening() as server:
        wanted = sought(server)
        if name == "route" and wanted not in Path("/proc/net/route").read_text("ascii"):
            raise LeftOut("this host has no route to anywhere")
        result = target.run(f"print({wanted!r} in open('/proc/self/net/{name}').read())")
    same(result.stdout, "False\n")


@SUITE.probe("P100", tried="read in /proc the names of the host's Unix sockets", expected="not there", wall="net-namespace")  # fmt: skip
def the_hosts_sockets_are_not_named(target: Target) -> None:
    name = f"escape-{secrets.token_hex(8)}"
    with listening(f"\0{name}"):
        result = target.run(f"print({name!r} in open('/proc/self/net/unix').read())")
    same(result.stdout, "False\n")


_OUTSIDE = {
    "by TCP": "s = socket.socket(); s.setblocking(False); print(tried(lambda: s.connect(('192.0.2.1', 53))))",
    "by UDP": "s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); print(tried(lambda: s.connect(('192.0.2.1', 53))))",
    "by UDP over IPv6": "s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM); print(tried(lambda: s.connect(('2001:db8::1', 53))))",
    "by TCP over IPv6": "s = socket.socket(socket.AF_INET6); s.setblocking(False); print(tried(lambda: s.connect(('2001:db8::1', 53))))",
    "by IPv4 inside IPv6": "s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM); print(tried(lambda: s.connect(('::ffff:192.0.2.1', 53))))",
    "to everybody on the wire": "s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.setsockopt(1, 6, 1); "
    "print(tried(lambda: s.connect(('255.255.255.255', 9))))",
    "to a private network": "s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); print(tried(lambda: s.connect(('10.0.0.1', 53))))",
    "to a container's host": "s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); print(tried(lambda: s.connect(('172.17.0.1', 53))))",
    "to a group": "s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); print(tried(lambda: s.connect(('224.0.0.251', 5353))))",
}


# A connected datagram socket sends nothing: only the route is looked up.
@SUITE.probe_each("P84", _OUTSIDE, tried="go outside {}", expected="ENETUNREACH, and it is counted", wall="network")
def going_outside_is_refused_at_once_and_counted(target: Target, code: str) -> None:
    result = target.run(code)
    same(result.stdout, "ENETUNREACH\n")
    holds(result.network_refused > 0, "it was not counted")


@SUITE.probe_each(
    "P96",
    {
        "P96 any host": "fumehood.invalid",
        "P86 Google's metadata service": "metadata.google.internal",
        "P86 Amazon's metadata service": "instance-data.ec2.internal",
        "P86 a container's host": "host.docker.internal",
        "P86 a cluster's interface": "kubernetes.default.svc",
    },
    tried="resolve the name of {}", expected="no answer, at once, and it is counted", wall="network",
)  # fmt: skip
def no_name_is_resolved_and_the_attempt_is_counted(target: Target, name: str) -> None:
    result = target.run(f"""
        if os.path.isdir("/sys"):
            sys.exit("no walls: this must not ask a real resolver")
        import time
        start = time.monotonic()
        try:
            socket.getaddrinfo({name!r}, 443)
        except socket.gaierror:
            print("refused", time.monotonic() - start < 2)
    """)
    same(result.stdout, "refused True\n")
    holds(result.network_refused > 0, "it was not counted")


@SUITE.probe("P96", tried="read whom the host asks for names, and the names that it knows", expected="not there", wall="files")  # fmt: skip
def the_hosts_names_are_not_told(target: Target) -> None:
    files = ["/etc/resolv.conf", "/etc/hosts", "/etc/nsswitch.conf", "/etc/hostname"]
    texts = [Path(path).read_text("utf-8", "replace") for path in files if Path(path).is_file()]
    if not texts:
        raise LeftOut("this host has no such file")
    result = target.run(f"""
        for path in {files}:
            if os.path.exists(path):
                sys.stdout.write(open(path, errors="replace").read())
        print("looked")
    """)
    holds(result.stdout.endswith("looked\n"), "the program did not look to the end")
    holds(not any(text and text in result.stdout for text in texts), "a file of the host's was read")


@SUITE.probe("P99", tried="unset the variables of proxies and open a page of the host's", expected="refused", wall="network")  # fmt: skip
def unsetting_proxy_variables_opens_nothing(target: Target) -> None:
    with listening() as server:
        result = target.run(
            f"""
            for name in list(os.environ):
                if "proxy" in name.lower():
                    del os.environ[name]
            import urllib.request
            try:
                urllib.request.urlopen("http://127.0.0.1:{_port(server)}/", timeout=0.5)
            except OSError as error:
                print(type(error.reason).__name__ if hasattr(error, "reason") else type(error).__name__)
            """
        )
        nobody_came(server)
    same(result.stdout, "ConnectionRefusedError\n")


@SUITE.probe_each(
    "P86",
    {address: address for address in ("169.254.169.254", "169.254.170.2", "100.100.100.200", "168.63.129.16", "192.0.0.192",
                                      "fd00:ec2::254", "fd20:ce::254", "::ffff:169.254.169.254")},
    tried="find a way to a cloud's metadata service at {}", expected="ENETUNREACH, and it is counted", wall="network",
)  # fmt: skip
def a_clouds_metadata_service_has_no_route(target: Target, address: str) -> None:
    # A connected datagram socket sends nothing: without walls, too, nobody is asked.
    family = "socket.AF_INET6" if ":" in address else "socket.AF_INET"
    result = target.run(f"print(tried(lambda: socket.socket({family}, socket.SOCK_DGRAM).connect(({address!r}, 80))))")
    same(result.stdout, "ENETUNREACH\n")
    holds(result.network_refused > 0, "it was not counted")


@SUITE.probe(
    "P85",
    tried="serve at a port that somebody on the host knocks at",
    expected="nobody comes",
    wall="network",
)
def a_port_that_the_program_opens_is_not_the_hosts(target: Target) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = _port(free)
    reached, over = threading.Event(), threading.Event()

    def knock() -> None:
        while not over.wait(0.02):
            try:
                socket.create_connection(("127.0.0.1", port), timeout=0.2).close()
                reached.set()
            except OSError:
                continue

    with ThreadPoolExecutor(1) as host:
        host.submit(knock)
        try:
            result = target.run(f"""
                server = socket.create_server(("0.0.0.0", {port}))
                server.settimeout(0.4)
                try:
                    server.accept()
                except TimeoutError:
                    print("nobody came")
            """)
        finally:
            over.set()
    holds(not reached.is_set(), "the host reached a server in the sandbox")
    same(result.stdout, "nobody came\n")


@SUITE.probe("P85", tried="share a port of the host's, to take its visitors", expected="they reach the host", wall="network")  # fmt: skip
def a_port_of_the_hosts_cannot_be_shared(target: Target) -> None:
    with socket.socket() as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        server.bind(("127.0.0.1", 0))
        server.listen(64)
        server.settimeout(0.2)
        port, over = _port(server), threading.Event()

        def visit() -> None:
            while not over.wait(0.02):
                with contextlib.suppress(OSError):
                    socket.create_connection(("127.0.0.1", port), timeout=0.2).close()

        with ThreadPoolExecutor(1) as host:
            host.submit(visit)
            try:
                result = target.run(f"""
                    thief = socket.socket()
                    thief.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
                    thief.bind(("127.0.0.1", {port}))
                    thief.listen(64)
                    thief.settimeout(0.4)
                    try:
                        thief.accept()
                        print("stolen")
                    except TimeoutError:
                        print("nobody came")
                """)
            finally:
                over.set()
    same(result.stdout, "nobody came\n")


@SUITE.probe("P06", tried="find a socket of the host's among its descriptors", expected="none", wall="files")
def a_leaked_socket_of_the_hosts_is_not_there(target: Target) -> None:
    with listening() as server:
        server.set_inheritable(True)
        result = target.run("""
            import stat
            for number in range(3, 1024):
                if os.path.exists(f"/proc/self/fd/{number}") and stat.S_ISSOCK(os.stat(number).st_mode):
                    print(number)
            print("looked")
        """)
    same(result.stdout, "looked\n")


@SUITE.probe_each(
    "P100",
    {
        "a made-up name": "escape-{}", "the message bus": "/tmp/dbus-{}", "a display": "/tmp/.X11-unix/X{}",
        "a manager of services": "/run/systemd/private-{}", "a container's daemon": "/containerd-shim/{}.sock",
    },
    tried="connect to an abstract socket of the host's named like {}", expected="not there", wall="net-namespace",
)  # fmt: skip
def an_abstract_socket_of_the_hosts_is_not_there(target: Target, form: str) -> None:
    name = "\0" + form.format(secrets.token_hex(8))
    with listening(name) as server:
        result = target.run(f"print(tried(lambda: socket.socket(socket.AF_UNIX).connect({name!r})))")
        nobody_came(server)
    one_of(result.stdout, ("ECONNREFUSED\n", "EPERM\n"))


@SUITE.probe_each(
    "P100",
    {"abstract": True, "that has a path": False},
    tried="tell the host's manager of services that all is well, by a datagram socket {}", expected="it hears nothing",
    wall="net-namespace",
)  # fmt: skip
def a_datagram_socket_of_the_hosts_hears_nothing(target: Target, abstract: bool) -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as folder, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server:
        os.chmod(folder, 0o755)  # noqa: S103 - anybody may look
        name = f"\0notify-{secrets.token_hex(8)}" if abstract else f"{folder}/notify"
        server.bind(name)
        if not abstract:
            os.chmod(name, 0o777)  # noqa: S103 - anybody may write
        server.settimeout(0.05)
        target.run(f"socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM).sendto(b'READY=1', {name!r})")
        _nothing_came(server)


@SUITE.probe_each(
    "P100",
    {"/tmp": "/tmp", "/var/tmp": "/var/tmp", "/dev/shm": "/dev/shm"},
    tried="connect to a socket of the host's that lies in {}", expected="ENOENT", wall="files",
)  # fmt: skip
def a_socket_in_a_shared_folder_is_not_the_hosts(target: Target, folder: str) -> None:
    path = f"{folder}/escape-{secrets.token_hex(8)}"
    with listening(path) as server:
        result = target.run(f"print(tried(lambda: socket.socket(socket.AF_UNIX).connect({path!r})))")
        nobody_came(server)
    same(result.stdout, "ENOENT\n")


@SUITE.probe("P102", tried="say on a socket that it is another process and root", expected="EPERM", wall="capabilities", only_root=True)  # fmt: skip
def nobody_else_can_be_named_as_sender(target: Target) -> None:
    claims = [struct.pack("iII", 1, 0, 0), struct.pack("iII", 1, 65534, 65534)]
    result = target.run(f"""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        print({{tried(lambda: ours.sendmsg([b"x"], [(socket.SOL_SOCKET, 2, claim)])) for claim in {claims}}} <= {{"EPERM", "EINVAL"}})
    """)
    same(result.stdout, "True\n")


@SUITE.probe("P102", tried="find the host's user in the credentials of a socket", expected="its own numbers alone", wall="own-user")  # fmt: skip
def a_sockets_credentials_are_of_the_sandbox(target: Target) -> None:
    result = target.run("""
        import struct
        pair = socket.socketpair()
        print(*struct.unpack("iII", pair[0].getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)))
    """)
    pid, user, group = map(int, result.stdout.split())
    holds((user, group) != (os.getuid(), os.getgid()), "they are the host's user and group")
    holds(pid < 100, "the process has a number of the host's")
