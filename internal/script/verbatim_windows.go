package script

import (
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
)

// verbatim gives cmd.exe its arguments as it reads them. Other programs of Windows
// undo the backslashes before quotes that [exec] writes; cmd.exe does not.
func verbatim(cmd *exec.Cmd) {
	name := strings.ToLower(filepath.Base(cmd.Path))
	if name != "cmd.exe" && name != "cmd" {
		return
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{CmdLine: cmdLine(cmd.Args)}
}
