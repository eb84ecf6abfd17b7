//go:build linux

package main

import "syscall"

// mode is one kind of failure at a point of a bake, which is an API call or a command on
// the machine.
type mode struct {
	name string

	signal   syscall.Signal // the signal that is sent to bake at that point
	before   bool           // the point is not carried out, and has no answer
	commands bool           // commands on the machine are points too

	code   string // error code of the refused call
	status int
	lose   bool // the call is carried out, and its answer lost
	half   bool // only half of the answer arrives
	page   bool // an error page of a proxy arrives instead

	forever bool // all later calls of the action fail too
	cut     bool // in addition, the ledger was written only in part
	resume  bool // the bake is resumed; for points after the last command
}

func (m mode) kills() bool { return m.signal == syscall.SIGKILL }

// modes returns all modes. A failure that occurs once also occurs permanently.
func modes() []mode {
	all := []mode{
		{name: "kill-before", signal: syscall.SIGKILL, before: true, commands: true},
		{name: "kill-after", signal: syscall.SIGKILL, commands: true},
		{name: "ledger", signal: syscall.SIGKILL, before: true, commands: true, cut: true},
		{name: "resume-before", signal: syscall.SIGKILL, before: true, resume: true},
		{name: "resume-after", signal: syscall.SIGKILL, resume: true},
		{name: "interrupt", signal: syscall.SIGINT, commands: true},
		{name: "terminate", signal: syscall.SIGTERM, before: true, commands: true},
	}
	faults := []mode{
		{name: "refuse", code: "UnauthorizedOperation", status: 403},
		{name: "throttle", code: "RequestLimitExceeded", status: 503},
		{name: "fail", code: "InternalError", status: 500},
		{name: "expire", code: "RequestExpired", status: 400},
		{name: "lose", lose: true},
		{name: "truncate", half: true},
		{name: "garble", page: true},
	}
	all = append(all, faults...)
	for _, f := range faults {
		f.name, f.forever = f.name+"-for-ever", true
		all = append(all, f)
	}
	return all
}
