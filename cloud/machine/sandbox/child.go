package sandbox

import (
	"fmt"
	"os"
	"path/filepath"
)

// Roles are values of the program's first argument with which it runs as a part of a machine.
const (
	roleWorker    = "bake-machine:worker"
	roleInit      = "bake-machine:init"
	roleAgent     = "bake-machine:ssh"
	roleSFTP      = "bake-machine:sftp"
	roleSupervise = "bake-machine:supervise"
	roleProbe     = "bake-machine:probe"
	roleExec      = "bake-machine:exec"
	roleShutdown  = "bake-machine:shutdown"
)

// Child runs the program's role in a machine if it was started for one, and returns the exit code.
// Since the driver starts the running program again, main, and TestMain of tests that start
// machines, must call it first:
//
//	if ran, code := sandbox.Child(os.Args); ran {
//		os.Exit(code)
//	}
func Child(args []string) (ran bool, exitCode int) {
	if len(args) == 0 {
		return false, 0
	}
	var err error
	switch args[0] {
	case roleWorker:
		err = workerMain(args)
	case roleInit:
		err = initMain()
	case roleProbe:
		err = probeMain(args)
	case roleExec:
		err = execMain(args)
	case roleAgent:
		err = agentMain()
	case roleSFTP:
		err = sftpMain()
	case roleShutdown:
		err = shutdownLater(args[1], args[2])
	case roleSupervise:
		err = superviseMain(args[1:])
	default:
		if !isStandIn() {
			return false, 0
		}
		name := filepath.Base(args[0])
		if isMountName(name) {
			return true, mountMain(name, args[1:])
		}
		return true, systemctlMain(name, args[1:])
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bake:", err)
		return true, 1
	}
	return true, 0
}

// isStandIn reports whether this process runs the file that replaces some of the image's programs
// in machines. Under whatever name it is called there, it is never bake. A bake that a user has put
// into a machine is another file.
func isStandIn() bool {
	own, err := os.Stat("/proc/self/exe")
	if err != nil {
		return false
	}
	// The machine's root may have moved the first file away.
	for _, path := range []string{programPath, systemctlPath, "/usr/bin/mount", "/usr/bin/umount", "/bin/mount", "/bin/umount"} {
		if program, err := os.Stat(path); err == nil && os.SameFile(own, program) {
			return true
		}
	}
	return false
}
