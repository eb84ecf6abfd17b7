package procgroup

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/windows"
)

// Start starts cmd, which has a context, as the first process of a job, which is killed
// when the context ends. Console events do not reach the job. Child processes belong to
// the job even after their parents have ended.
func Start(cmd *exec.Cmd) error {
	job, err := windows.CreateJobObject(nil, nil)
	if err != nil {
		return fmt.Errorf("%s: a job for its processes: %w", cmd.Path, err)
	}
	runtime.AddCleanup(cmd, func(job windows.Handle) { _ = windows.CloseHandle(job) }, job) // the job continues to exist in its processes
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	// The process is suspended until it belongs to the job.
	cmd.SysProcAttr.CreationFlags = windows.CREATE_NEW_PROCESS_GROUP | windows.CREATE_SUSPENDED
	cmd.Cancel = func() error { return errors.Join(windows.TerminateJobObject(job, 1), ended(cmd.Process.Kill())) }
	if err := cmd.Start(); err != nil {
		return err
	}
	var failed error
	err = cmd.Process.WithHandle(func(handle uintptr) {
		if failed = windows.AssignProcessToJobObject(job, windows.Handle(handle)); failed == nil {
			failed = resume(handle)
		}
	})
	if err = errors.Join(err, failed); err != nil {
		return errors.Join(fmt.Errorf("%s: its job: %w", cmd.Path, err), ended(cmd.Process.Kill()), cmd.Wait())
	}
	return nil
}

// ended returns err, or nil if err means that the process has ended already.
func ended(err error) error {
	if errors.Is(err, os.ErrProcessDone) || errors.Is(err, windows.ERROR_ACCESS_DENIED) {
		return nil
	}
	return err
}

// resume starts the threads of a process that was created suspended.
func resume(process uintptr) error {
	if status, _, _ := windows.NewLazySystemDLL("ntdll.dll").NewProc("NtResumeProcess").Call(process); status != 0 {
		return windows.NTStatus(status)
	}
	return nil
}

// Signal kills a process that [Start] has started and its children: Windows has no
// gentler signal that reaches them all.
func Signal(cmd *exec.Cmd, _ syscall.Signal) error { return cmd.Cancel() }

// Kill kills a process and its descendants. It does not find the descendants of a process
// that has already ended.
func Kill(pid int) error {
	family, err := descendants(uint32(pid)) // before it ends and its number is reused
	for _, one := range append([]uint32{uint32(pid)}, family...) {
		p, gone := os.FindProcess(int(one))
		if gone != nil {
			continue
		}
		err = errors.Join(err, ended(p.Kill()), p.Release())
	}
	return err
}

// descendants returns the running descendants of a process.
func descendants(pid uint32) ([]uint32, error) {
	snapshot, err := windows.CreateToolhelp32Snapshot(windows.TH32CS_SNAPPROCESS, 0)
	if err != nil {
		return nil, fmt.Errorf("the processes that run: %w", err)
	}
	defer windows.CloseHandle(snapshot) //nolint:errcheck // it was only read
	children := map[uint32][]uint32{}
	entry := windows.ProcessEntry32{Size: uint32(unsafe.Sizeof(windows.ProcessEntry32{}))}
	for err = windows.Process32First(snapshot, &entry); err == nil; err = windows.Process32Next(snapshot, &entry) {
		children[entry.ParentProcessID] = append(children[entry.ParentProcessID], entry.ProcessID)
	}
	if !errors.Is(err, windows.ERROR_NO_MORE_FILES) {
		return nil, fmt.Errorf("the processes that run: %w", err)
	}
	return family(pid, children, created), nil
}

// family returns the descendants of a process. A parent is known by its number only, which
// an earlier process may have had: a process that is younger than a child is not its parent.
// created returns when a process was created, or 0 if it no longer runs. It is called once
// for each, because a parent may end meanwhile.
func family(pid uint32, children map[uint32][]uint32, created func(uint32) int64) (all []uint32) {
	since := map[uint32]int64{pid: created(pid)} // creation times of all processes found
	if since[pid] == 0 {
		return nil // its children cannot be told from those of an earlier process
	}
	for next := []uint32{pid}; len(next) > 0; next = next[1:] {
		for _, child := range children[next[0]] {
			if _, found := since[child]; found {
				continue
			}
			if at := created(child); at != 0 && at >= since[next[0]] {
				since[child] = at
				all, next = append(all, child), append(next, child)
			}
		}
	}
	return all
}
