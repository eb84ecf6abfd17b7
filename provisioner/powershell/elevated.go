package powershell

import (
	_ "embed"
	"encoding/base64"
	"fmt"
	"strings"

	"github.com/google/uuid"
)

//go:embed elevated.ps1
var elevatedScript string

// elevation is one scheduled task of the user who runs a script.
type elevation struct {
	task    string // its name
	log     string // file that it writes its output to; %NAME% is a variable of the environment
	wrapper string // path of the script that makes the task
}

func newElevation() elevation {
	task := "packer-" + uuid.NewString()
	return elevation{
		task:    task,
		log:     `%SYSTEMROOT%/Temp/` + task + ".out",
		wrapper: "C:/Windows/Temp/packer-elevated-shell-" + uuid.NewString() + ".ps1",
	}
}

// script returns the text of the wrapper that runs a command line.
func (e elevation) script(user, password, command string) string {
	var pairs []string
	for name, text := range map[string]string{"TASK": e.task, "LOG": e.log, "USER": user, "PASSWORD": password, "COMMAND": command} {
		pairs = append(pairs, "%"+name+"%", base64.StdEncoding.EncodeToString([]byte(text)))
	}
	return strings.NewReplacer(pairs...).Replace(elevatedScript)
}

// command returns the command line that runs the wrapper.
func (e elevation) command() string {
	return fmt.Sprintf(`powershell -executionpolicy bypass -file "%s"`, e.wrapper)
}
