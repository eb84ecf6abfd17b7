package main

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/spf13/pflag"

	"bake/run"
)

// exitCodesVariable is the choice of exit codes, if no flag makes it.
const exitCodesVariable = "BAKE_EXIT_CODES"

// The values of -exit-codes.
const (
	bakeCodes   = "bake"
	packerCodes = "packer" // 0 and 1
)

// runExitCodes are those of the commands that run something, for their help.
const runExitCodes = `0    done
1    failed: the template or the command line is wrong, or any other reason
3    done, and nothing had to be built (only with -detailed-exitcode)
4    something was left behind
5    refused by the cloud before a machine or an image was made
6    a provisioner failed
7    an image was made, but not copied, shared or tagged everywhere
8    the time limit of -timeout has passed
130  cancelled by Ctrl-C (SIGINT); 143: by SIGTERM
With -exit-codes=packer: only 0 and 1.`

// sweepExitCodes are those of bake sweep.
const sweepExitCodes = `0    done
1    failed, such as a ledger that cannot be read, or the command line is wrong
4    something was not deleted
5    the cloud refused to say what is there
130  cancelled by Ctrl-C (SIGINT); 143: by SIGTERM
With -exit-codes=packer: only 0 and 1.`

// exitCodesFlag registers the flag that selects Packer's exit codes, for a command with
// more exit codes than Packer's.
func (p *program) exitCodesFlag(flags *pflag.FlagSet, codes *choice) {
	codes.values = []string{bakeCodes, packerCodes}
	flags.Var(codes, "exit-codes", "`meaning` of the exit codes: bake, or packer for only 0 and 1; default: $"+exitCodesVariable+", or bake, or packer if that is the program's name")
}

// outcomeError is the error of a command whose exit code reports its outcome.
type outcomeError struct {
	error
	code int
}

func (e outcomeError) Unwrap() error { return e.error }

// ended adds the exit code to the error of a command that runs something. shown is that
// error, or a different one if the error was reported already.
func (p *program) ended(err, shown error, codes choice) error {
	choose := codes.value
	if choose == "" {
		choose = p.env.get(exitCodesVariable)
	}
	if choose == "" && strings.TrimSuffix(filepath.Base(p.name), ".exe") == packerCodes {
		choose = packerCodes
	}
	outcome := run.OutcomeOf(err)
	p.json.outcome = outcome.String()
	if outcome == run.OutcomeDone || choose == packerCodes {
		return shown
	}
	return outcomeError{shown, int(outcome)}
}

// allReused ends a command that has found nothing to build.
func (p *program) allReused(codes choice) error {
	if err := p.ended(nil, nil, codes); err != nil {
		return err
	}
	p.json.outcome = run.OutcomeReused.String()
	return outcomeError{errReported, int(run.OutcomeReused)}
}

// checkExitCodes returns an error if the setting in the environment is invalid.
func (e environ) checkExitCodes() error {
	switch v := e.get(exitCodesVariable); v {
	case "", bakeCodes, packerCodes:
		return nil
	default:
		return fmt.Errorf("%s is %q; it must be %s or %s", exitCodesVariable, v, bakeCodes, packerCodes)
	}
}

// outcomeCode returns the exit code in err, if it has one.
func outcomeCode(err error) (int, bool) {
	ended, ok := errors.AsType[outcomeError](err)
	return ended.code, ok
}
