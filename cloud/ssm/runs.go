package ssm

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"unicode/utf8"

	"github.com/aws/aws-sdk-go-v2/aws"

	"bake/cloud/api/ssm"
	"bake/cloud/durable"
	"bake/cloud/machine"
	"bake/cloud/wire"
)

// Objects stores the output of commands.
type Objects interface {
	// Bucket returns an error if the caller cannot put objects into a bucket.
	Bucket(c wire.Caller, bucket string) error
	// Put creates an object of the caller.
	Put(c wire.Caller, bucket, key string, data []byte) error
}

// How many bytes of a command's output are kept: for answers, as in Systems Manager, and
// for a bucket.
const (
	maxStdout, maxStderr = 24000, 8000
	maxStored            = 1 << 20
	maxReason            = 1000 // of standard error, used as the reason of a failure
)

// Values of StatusDetails that differ from the statuses.
const (
	deliveryTimedOut  = "DeliveryTimedOut"
	executionTimedOut = "ExecutionTimedOut"
	undeliverable     = "Undeliverable"
	terminated        = "Terminated"
)

// Reasons for ending a command on an instance early.
var (
	errCancelled = errors.New("the command was cancelled")
	errTooLong   = errors.New("the command took longer than its executionTimeout")
	errClosing   = errors.New("the embedded cloud is being closed")
)

// execution is a running command. Its fields do not change.
type execution struct {
	id      string
	caller  wire.Caller
	plan    plan
	cancel  context.CancelCauseFunc            // cancels all invocations
	cancels map[string]context.CancelCauseFunc // by instance
	ctxs    map[string]context.Context
}

// begin starts a command. Its row may be stored after the call, as long as the lock is not
// released in between.
func (s *Service) begin(st *state, c wire.Caller, id string, targets []invocation, p plan) {
	e := &execution{id: id, caller: c, plan: p, cancels: map[string]context.CancelCauseFunc{}, ctxs: map[string]context.Context{}}
	ctx, cancel := context.WithCancelCause(context.Background())
	e.cancel = cancel
	for _, v := range targets {
		e.ctxs[v.InstanceID], e.cancels[v.InstanceID] = context.WithCancelCause(ctx)
	}
	st.running[id] = e
	s.work.Go(func() {
		s.execute(e, targets)
		cancel(nil)
		_ = s.guarded.Update(func(st *state) error { delete(st.running, id); return nil })
	})
}

// execute runs a command on its instances, at most plan.concurrency at a time, until more
// than plan.maxErrors have failed or the plan expires.
func (s *Service) execute(e *execution, targets []invocation) {
	expired, cancel := context.WithTimeout(context.Background(), e.plan.expires.Sub(s.opts.Now()))
	defer cancel()
	turns := make(chan struct{}, e.plan.concurrency)
	var mu sync.Mutex
	failed := 0
	tooMany := func() bool {
		mu.Lock()
		defer mu.Unlock()
		return failed > e.plan.maxErrors
	}
	var all sync.WaitGroup
	for _, v := range targets {
		select {
		case turns <- struct{}{}:
		case <-e.ctxs[v.InstanceID].Done(): // this invocation was cancelled
			continue
		case <-expired.Done():
		}
		switch {
		case expired.Err() != nil: // also for all following instances
			s.end(e, v.InstanceID, ssm.CommandInvocationStatusTimedOut, deliveryTimedOut)
		case tooMany():
			<-turns
			s.end(e, v.InstanceID, ssm.CommandInvocationStatusCancelled, terminated)
		default:
			all.Go(func() {
				defer func() { <-turns }()
				if s.runOn(e, v.InstanceID) {
					mu.Lock()
					failed++
					mu.Unlock()
				}
			})
		}
	}
	all.Wait()
}

// change changes an invocation, unless it is over.
func (s *Service) change(e *execution, instance string, change func(*invocation)) (changed bool) {
	// An error of the disk is reported to the next caller that reads the row.
	_ = s.guarded.Update(func(st *state) error {
		return st.commands.Edit(e.id, func(row *command) {
			for i := range row.Invocations {
				if v := &row.Invocations[i]; v.InstanceID == instance && !v.over() {
					change(v)
					changed = true
				}
			}
		})
	})
	return changed
}

// end ends an invocation that has not begun.
func (s *Service) end(e *execution, instance string, status ssm.CommandInvocationStatus, details string) {
	s.change(e, instance, func(v *invocation) { v.finish(status, details, s.opts.Now().UTC()) })
}

// runOn runs a command on an instance, and reports whether it failed there.
func (s *Service) runOn(e *execution, instance string) bool {
	ctx, cancel := context.WithTimeoutCause(e.ctxs[instance], e.plan.limit, errTooLong)
	defer cancel()
	row := s.row(e)
	if row == nil {
		return false
	}
	begun := s.change(e, instance, func(v *invocation) {
		v.Status, v.Details, v.Started = ssm.CommandInvocationStatusInProgress, "InProgress", s.opts.Now().UTC()
	})
	if !begun { // it was cancelled
		return false
	}
	bucket, limit := aws.ToString(row.Sent.OutputS3BucketName), maxStdout
	if bucket != "" {
		limit = maxStored
	}
	stdout, stderr := &kept{limit: limit}, &kept{limit: limit}
	code, err := s.runScript(ctx, e, instance, machine.Command{Script: []byte(e.plan.script), Dir: e.plan.dir, Stdout: stdout, Stderr: stderr})
	result := verdict(code, err)
	stored := bucket != ""
	if stored {
		c := e.caller
		c.Region = cmp.Or(aws.ToString(row.Sent.OutputS3Region), c.Region)
		for stream, text := range map[string][]byte{"stdout": stdout.data, "stderr": append(stderr.data, result.Stderr...)} {
			if err := s.opts.Objects.Put(c, bucket, row.key(instance, stream), text); err != nil {
				stored = false
				result.Stderr += fmt.Sprintf("\nfailed to put the output into the bucket %s: %s", bucket, wire.AsError(err).Message)
			}
		}
	}
	reason := beginning(result.Stderr, maxReason)
	s.change(e, instance, func(v *invocation) {
		v.finish(result.Status, result.Details, s.opts.Now().UTC())
		v.Code, v.Stored = result.Code, stored
		v.Stdout, v.Stderr = beginning(string(stdout.data), maxStdout), beginning(string(stderr.data), maxStderr-len(reason))+reason
	})
	return result.isError()
}

// rebootCode is the exit status with which a script asks Systems Manager for a reboot,
// after which the script runs again from its beginning. maxRuns is the largest number of
// runs.
const rebootCode, maxRuns = 194, 16

// runScript runs a script on an instance, which is rebooted whenever the script asks for
// it. Its output is that of all runs, and the time limit covers all runs and reboots.
func (s *Service) runScript(ctx context.Context, e *execution, instance string, script machine.Command) (code int, err error) {
	for run := 1; ; run++ {
		code, err = s.opts.Machines.RunManaged(ctx, e.caller, instance, script)
		if err != nil || code != rebootCode || run == maxRuns {
			return code, err
		}
		if err := s.opts.Machines.RebootManaged(ctx, e.caller, instance); err != nil {
			return code, err
		}
	}
}

func (s *Service) row(e *execution) *command {
	return durable.View(s.guarded, func(st *state) *command { return st.commands.Rows[e.id] })
}

// verdict returns the result of an invocation. Its standard error includes what Systems
// Manager's agent adds.
func verdict(code int, err error) invocation {
	v := invocation{Code: int32(code)}
	switch {
	case errors.Is(err, errCancelled):
		v.Code = -1
		v.Status, v.Details = ssm.CommandInvocationStatusCancelled, string(ssm.CommandInvocationStatusCancelled)
	case errors.Is(err, errTooLong):
		v.Code, v.Stderr = -1, "\nfailed to run commands: exceeded its executionTimeout"
		v.Status, v.Details = ssm.CommandInvocationStatusTimedOut, executionTimedOut
	case errors.Is(err, errClosing), errors.Is(err, machine.ErrEnded):
		v.Code, v.Stderr = -1, "\nfailed to run commands: the instance has ended"
		v.Status, v.Details = ssm.CommandInvocationStatusFailed, undeliverable
	case err != nil:
		if code == 0 {
			v.Code = -1
		}
		v.Stderr = "\nfailed to run commands: " + wire.Message(err)
		v.Status, v.Details = ssm.CommandInvocationStatusFailed, string(ssm.CommandInvocationStatusFailed)
	case code == rebootCode:
		v.Stderr = fmt.Sprintf("\nfailed to run commands: exit status %d, which asks for a reboot, after %d runs", code, maxRuns)
		v.Status, v.Details = ssm.CommandInvocationStatusFailed, string(ssm.CommandInvocationStatusFailed)
	case code != 0:
		v.Stderr = fmt.Sprintf("\nfailed to run commands: exit status %d", code)
		v.Status, v.Details = ssm.CommandInvocationStatusFailed, string(ssm.CommandInvocationStatusFailed)
	default:
		v.Status, v.Details = ssm.CommandInvocationStatusSuccess, string(ssm.CommandInvocationStatusSuccess)
	}
	return v
}

// kept keeps the beginning of the output written to it, as text.
type kept struct {
	data  []byte
	limit int
}

func (k *kept) Write(p []byte) (int, error) {
	k.data = append(k.data, p[:min(len(p), k.limit-len(k.data))]...)
	return len(p), nil
}

// beginning returns the start of a text, with valid characters only, in at most n bytes.
func beginning(text string, n int) string {
	var out []byte
	for _, r := range text { // range replaces invalid bytes with U+FFFD
		if len(out)+utf8.RuneLen(r) > n {
			break
		}
		out = utf8.AppendRune(out, r)
	}
	return string(out)
}

// CancelCommand cancels a command on some or all of its instances, whether or not it has
// begun there. It is no error if the command is over.
func (s *state) CancelCommand(ctx context.Context, in *ssm.CancelCommandInput) (*ssm.CancelCommandOutput, error) {
	row := s.sentCommand(wire.CallerFrom(ctx), *in.CommandId)
	if row == nil {
		return nil, wire.Errorf("InvalidCommandId", "The command %s does not exist.", *in.CommandId)
	}
	for i, id := range in.InstanceIds {
		switch {
		case !slices.ContainsFunc(row.Invocations, func(v invocation) bool { return v.InstanceID == id }):
			return nil, wire.Errorf("InvalidInstanceId", "The command %s is not for the instance %s.", *in.CommandId, id)
		case slices.Contains(in.InstanceIds[:i], id):
			return nil, wire.Errorf("DuplicateInstanceId", "The instance %s is named more than once.", id)
		}
	}
	e := s.running[*in.CommandId]
	if e == nil {
		return &ssm.CancelCommandOutput{}, nil
	}
	err := s.commands.Edit(*in.CommandId, func(row *command) {
		for i := range row.Invocations {
			v := &row.Invocations[i]
			switch {
			case len(in.InstanceIds) > 0 && !slices.Contains(in.InstanceIds, v.InstanceID) || v.over():
				continue
			case v.Status == ssm.CommandInvocationStatusPending:
				v.finish(ssm.CommandInvocationStatusCancelled, string(ssm.CommandInvocationStatusCancelled), s.now().UTC())
			default:
				v.Status, v.Details = ssm.CommandInvocationStatusCancelling, string(ssm.CommandInvocationStatusCancelling)
			}
			row.Cancelled = true
			e.cancels[v.InstanceID](errCancelled)
		}
	})
	return &ssm.CancelCommandOutput{}, err
}

// recover marks the commands that were running when the last process ended as failed:
// their instances ended with that process.
func (s *state) recover() error {
	for _, id := range s.commands.IDs() {
		if slices.ContainsFunc(s.commands.Rows[id].Invocations, func(v invocation) bool { return !v.over() }) {
			err := s.commands.Edit(id, func(row *command) {
				for i := range row.Invocations {
					if v := &row.Invocations[i]; !v.over() {
						v.finish(ssm.CommandInvocationStatusFailed, undeliverable, s.now().UTC())
					}
				}
			})
			if err != nil {
				return err
			}
		}
	}
	return s.forgetCommands(s.now())
}
