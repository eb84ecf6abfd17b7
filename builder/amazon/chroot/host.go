package chroot

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"bake/builder/amazon/internal/wait"
	"bake/communicator"
	"bake/communicator/chroot"
	"bake/internal/delay"
	"bake/internal/filelock"
)

// Host is the machine that bake runs on, which must be an EC2 instance.
type Host struct {
	// Instance returns the ID of the instance.
	Instance func(ctx context.Context) (string, error)

	// Run runs a line in the machine's shell and returns what it prints.
	Run func(ctx context.Context, line string) (string, error)

	// Exists reports whether a file, such as a device, exists.
	Exists func(path string) bool

	// Lock is a file that is locked while a build chooses a device.
	Lock string
}

// thisHost returns the real host. env is the environment of commands.
func thisHost(instance func(context.Context) (string, error), env []string) Host {
	return Host{
		Instance: func(ctx context.Context) (string, error) {
			if runtime.GOOS != "linux" {
				return "", fmt.Errorf("its system is %s, and amazon-chroot mounts volumes as Linux does", runtime.GOOS)
			}
			return instance(ctx)
		},
		Run: func(ctx context.Context, line string) (string, error) {
			var out, errs bytes.Buffer
			status, err := chroot.Local(ctx, line, env, communicator.Command{Stdout: &out, Stderr: &errs})
			if err == nil && status.Code != 0 {
				err = fmt.Errorf("%s: status %d: %s", line, status.Code, strings.TrimSpace(errs.String()+out.String()))
			}
			return out.String(), err
		},
		Exists: func(path string) bool { _, err := os.Stat(path); return err == nil },
		Lock:   "/var/lock/packer-chroot/lock",
	}
}

// exclusively runs do while no other build on the machine can choose a device. It waits
// for its turn.
func (h Host) exclusively(ctx context.Context, do func() error) error {
	if err := os.MkdirAll(filepath.Dir(h.Lock), 0o755); err != nil {
		return err
	}
	f, err := os.OpenFile(h.Lock, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return fmt.Errorf("the lock of amazon-chroot builds: %w", err)
	}
	defer f.Close() // which releases the lock
	for {
		err := filelock.Try(f)
		if err == nil {
			return do()
		}
		if !errors.Is(err, filelock.ErrLocked) {
			return fmt.Errorf("the lock of amazon-chroot builds: %w", err)
		}
		if err := delay.For(ctx, 100*time.Millisecond); err != nil {
			return err
		}
	}
}

// freeDevice returns the first unused device name, in the form of the machine's disk names.
func (h Host) freeDevice() (string, error) {
	prefix := "/dev/sd"
	for _, p := range []string{"/dev/xvd", "/dev/sd"} {
		if h.Exists(p+"a") || h.Exists(p+"a1") {
			prefix = p
			break
		}
	}
	for letter := 'f'; letter <= 'p'; letter++ {
		if name := prefix + string(letter); !h.Exists(name) {
			return name, nil
		}
	}
	return "", errors.New("no device name from " + prefix + "f to " + prefix + "p is free")
}

// await waits until a device exists.
func (h Host) await(ctx context.Context, device string) error {
	watch := wait.Watch{Delay: time.Second, Limit: time.Minute}
	return watch.Until(ctx, "the device "+device+" to appear", func(context.Context) (bool, error) { return h.Exists(device), nil })
}
