package winrm

import (
	"encoding/base64"
	"encoding/xml"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// response is what of an answer matters.
type response struct {
	Shell struct {
		ID string `xml:"ShellId"`
	} `xml:"Body>Shell"`
	Created []struct { // in place of Shell, before Windows 8
		Name string `xml:",attr"`
		ID   string `xml:",chardata"`
	} `xml:"Body>ResourceCreated>ReferenceParameters>SelectorSet>Selector"`
	CommandID string   `xml:"Body>CommandResponse>CommandId"`
	Receive   *receipt `xml:"Body>ReceiveResponse"`
}

// receipt is the answer to a request for output.
type receipt struct {
	Streams []struct {
		Name    string `xml:",attr"`
		Content string `xml:",chardata"`
	} `xml:"Stream"`
	State struct {
		State    string `xml:",attr"`
		ExitCode string
	} `xml:"CommandState"`
}

func parseResponse(text string) (r response, err error) {
	if err := xml.Unmarshal([]byte(text), &r); err != nil {
		return r, fmt.Errorf("the machine's answer cannot be read: %w", err)
	}
	return r, nil
}

// parseShell reads the id of a new shell.
func parseShell(text string) (string, error) {
	r, err := parseResponse(text)
	if err != nil {
		return "", err
	}
	for _, s := range r.Created {
		if s.Name == "ShellId" && r.Shell.ID == "" {
			r.Shell.ID = s.ID
		}
	}
	if r.Shell.ID == "" {
		return "", errors.New("the machine opened a shell without an id")
	}
	return strings.TrimSpace(r.Shell.ID), nil
}

// parseCommand reads the id of a command that was started.
func parseCommand(text string) (string, error) {
	r, err := parseResponse(text)
	if err == nil && r.CommandID == "" {
		err = errors.New("the machine started a command without an id")
	}
	return strings.TrimSpace(r.CommandID), err
}

// parseReceipt parses an answer that carries output. Only the machine knows how a command
// ended, so an answer without a clear exit status is an error.
func parseReceipt(text string, output func(stderr bool, b []byte) error) (done bool, code int, err error) {
	r, err := parseResponse(text)
	if err != nil {
		return false, 0, err
	}
	if r.Receive == nil {
		return false, 0, errors.New("the machine's answer is not about the output of the command")
	}
	for _, s := range r.Receive.Streams {
		b, err := base64.StdEncoding.DecodeString(strings.Join(strings.Fields(s.Content), ""))
		if err != nil {
			return false, 0, fmt.Errorf("the machine's answer cannot be read: %w", err)
		}
		if len(b) == 0 {
			continue
		}
		if err := output(s.Name == "stderr", b); err != nil {
			return false, 0, err
		}
	}
	if done = strings.HasSuffix(r.Receive.State.State, "/CommandState/Done"); !done {
		return false, 0, nil
	}
	n, err := strconv.ParseInt(strings.TrimSpace(r.Receive.State.ExitCode), 10, 64)
	if err != nil || n != int64(int32(n)) && n != int64(uint32(n)) {
		return false, 0, fmt.Errorf("the machine does not tell the exit status of the command: it is %q", r.Receive.State.ExitCode)
	}
	return true, int(n), nil
}
