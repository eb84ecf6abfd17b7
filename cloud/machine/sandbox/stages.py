# Runs stages of cloud-init, called as that is. To load it takes longer than most stages, so
# a call with LOAD, or else the first one, loads it and stays; each stage is a copy of that process, with the
# files and the environment and in the control group of the call that asks for it. A call that ends ends its
# stage; the process ends with the last stage. While the first stage runs, that process prepares what
# each of the others would do for itself.
import sys
from _socket import AF_UNIX, SCM_RIGHTS, SOCK_SEQPACKET, SOL_SOCKET, socket as Socket  # a call needs no more
from posix import environ, unlink

PATH = "/run/bake/cloud-init.socket"
LOAD = "load"
LAST = "--mode=final"
PATIENCE = 120  # seconds until a process that nobody asks ends


def group():
    with open("/proc/self/cgroup") as f:
        return "/sys/fs/cgroup" + f.read().strip().rpartition(":")[2] + "/cgroup.procs"


def ask(args):
    s = Socket(AF_UNIX, SOCK_SEQPACKET)
    s.connect(PATH)
    variables = [k + b"=" + v for k, v in environ.items()]
    text = b"\0".join([v.encode() for v in [group(), str(len(args))] + args] + variables)
    files = b"".join(fd.to_bytes(4, sys.byteorder) for fd in (0, 1, 2))
    s.sendmsg([text], [(SOL_SOCKET, SCM_RIGHTS, files)])
    return int(s.recv(16) or 1)


def remember(load):
    """Each stage reads the same configuration several times, with a slow parser."""
    known = {}

    def remembered(stream, *args, **named):
        if not isinstance(stream, (str, bytes)):
            return load(stream, *args, **named)
        key = stream, args, tuple(named.items())
        if key not in known:
            known[key] = load(stream, *args, **named)
        return copy.deepcopy(known[key])

    return remembered


def prepare():
    """Loads the modules that the stages are configured to run, and learns what stays the same. What
    fails here does so in the stage too, which reports it."""
    from cloudinit import util

    def load(name):
        return lambda: importlib.import_module(name)

    config = util.read_conf_with_confd("/etc/cloud/cloud.cfg")
    sections = [config.get(n) or [] for n in ("cloud_init_modules", "cloud_config_modules", "cloud_final_modules")]
    modules = [m if isinstance(m, str) else m[0] for section in sections for m in section]
    chores = [load("cloudinit.sources.DataSourceEc2")]
    chores += [load("cloudinit.config.cc_" + m.replace("-", "_")) for m in modules]
    # The last ones run programs of the image, which a stage that has ended may have to wait for.
    if hasattr(util.is_container, "cache_info"):
        chores.append(util.is_container)
    if "apt-configure" in modules and hasattr(util.lsb_release, "cache_info"):
        chores.append(lambda: util.lsb_release(target=None))
    for chore in chores:
        yield
        try:
            chore()
        except BaseException:  # SystemExit too
            pass
    gc.freeze()


def wait(files, chores):
    """Does chores until there is something to read."""
    try:
        for _ in chores:
            ready, _, _ = select.select(files, [], [], 0)
            if ready:
                return ready
    except Exception:  # the configuration is not what was expected
        pass
    ready, _, _ = select.select(files, [], [])
    return ready


def serve(listener):
    chores = prepare()
    while True:
        try:
            conn, _ = listener.accept()
        except socket.timeout:
            os._exit(0)
        text, ancillary, _, _ = conn.recvmsg(1 << 16, socket.CMSG_SPACE(12))
        if not ancillary:  # the call ended before it asked
            conn.close()
            continue
        files = array.array("i")
        files.frombytes(ancillary[0][2])
        where, n, *rest = os.fsdecode(text).split("\0")
        args, environment = rest[: int(n)], rest[int(n) :]
        done, running = os.pipe()  # closed by the end of the stage
        child = os.fork()
        if child == 0:
            os.close(done)
            listener.close()
            conn.close()
            with open(where, "w") as f:
                f.write(str(os.getpid()))
            for i, fd in enumerate(files):
                os.dup2(fd, i)
                os.close(fd)
            os.environ.clear()
            os.environ.update(v.split("=", 1) for v in environment)
            return args
        for fd in [running, *files]:
            os.close(fd)
        ended = wait([conn, done], chores)
        if done not in ended:
            os.kill(child, signal.SIGTERM)
        _, status = os.waitpid(child, 0)
        os.close(done)
        try:
            conn.send(str(os.WEXITSTATUS(status) if os.WIFEXITED(status) else 1).encode())
        except OSError:  # nobody waits for it
            pass
        conn.close()
        if LAST in args:
            os._exit(0)


args = sys.argv[1:]
if args != [LOAD]:
    try:
        sys.exit(ask(args))
    except FileNotFoundError:
        pass
    except ConnectionError:  # that process has died
        unlink(PATH)
import array, os, select, signal, socket

listener = socket.socket(AF_UNIX, SOCK_SEQPACKET)
own = PATH + "." + str(os.getpid())
listener.bind(own)
listener.listen()  # before anybody finds it
try:
    os.link(own, PATH)
    faster = False
except FileExistsError:
    faster = True
os.unlink(own)
if faster:  # another process was
    sys.exit(0 if args == [LOAD] else ask(args))
listener.settimeout(PATIENCE)
if args != [LOAD]:
    if os.fork() != 0:
        listener.close()
        sys.exit(ask(args))
    os.setsid()
import atexit, copy, gc, importlib, site

site.main()  # which the call leaves out, for the sake of those that only ask
gc.disable()
try:
    import yaml

    yaml.load = remember(yaml.load)
except ImportError:  # cloud-init will say so
    pass
from cloudinit.cmd.main import main

gc.freeze()  # or each copy would write to all of it
gc.enable()
sys.argv = ["/usr/bin/cloud-init"] + serve(listener)
try:
    code = main()
except SystemExit as e:
    code = e.code
atexit._run_exitfuncs()
if code is not None and not isinstance(code, int):
    print(code, file=sys.stderr)
    code = 1
sys.stdout.flush()
sys.stderr.flush()
os._exit(code or 0)  # and not take all down that the copy has
