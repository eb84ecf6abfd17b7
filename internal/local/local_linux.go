package local

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/aws/aws-sdk-go-v2/config"

	"bake/cloud"
	"bake/cloud/durable"
	"bake/cloud/image"
	"bake/cloud/machine/sandbox"
)

// comesUp is how long a process that has opened the local cloud may take to serve it, or
// to close it again: on a busy host, cleaning up after a crash takes time. After
// comesSoon, the user gets a message.
const (
	comesUp   = 30 * time.Second
	comesSoon = 3 * time.Second
)

// shutdown is how long the machines of the local cloud may take to shut down.
const shutdown = 30 * time.Second

// Child runs the part of a machine that args name, if any: machines run in processes of
// this program. It is called before anything else.
func Child(args []string) (ran bool, code int) { return sandbox.Child(args) }

// Open returns the local cloud. If another process serves it, Open uses that process and
// keeps it running until Close; otherwise this process serves the cloud until Close.
func Open(ctx context.Context, o Options) (*Cloud, error) {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	told := false
	for begin := time.Now(); ; {
		c, err := Serve(ctx, o)
		inUse, ok := errors.AsType[*cloud.InUseError](err)
		if !ok {
			return c, err
		}
		closing := false
		if inUse.URL != "" {
			if o.EgressAsked {
				return nil, fmt.Errorf("-allow-egress: process %d already serves the local cloud and decides what machines can reach: use the option there, or stop that process first", inUse.PID)
			}
			if o.Faults != "" {
				return nil, fmt.Errorf("-faults: process %d already serves the local cloud, without these rules: give them to it with \"bake cloud faults %s\", or stop that process first", inUse.PID, o.Faults)
			}
			c, err := join(ctx, o, inUse)
			if closing = errors.Is(err, cloud.ErrClosing); !closing {
				return c, err
			}
		}
		if !told && time.Since(begin) > comesSoon && o.Opening != nil {
			o.Opening(inUse.PID)
			told = true
		}
		if !closing && time.Since(begin) > comesUp { // closing ends by itself
			return nil, fmt.Errorf("%w. Builds share a cloud that is served: one that \"bake cloud up\" has ready, or that of a build that has begun. BAKE_CLOUD_DIR names another directory", err)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

var _ [0]struct{} = [MaxAccounts - cloud.MaxAccounts]struct{}{}

// Serve opens the local cloud in this process. It fails if another one has it open.
func Serve(ctx context.Context, o Options) (_ *Cloud, err error) {
	delays, faults, err := rehearsal(o)
	if err != nil {
		return nil, err
	}
	driver, store, err := open(o.Dir, o.Log)
	if err != nil {
		return nil, unusable(o.Dir, err)
	}
	mirrors, err := image.ParseMirrors(o.Mirror)
	if err != nil {
		return nil, fmt.Errorf("-mirror or BAKE_MIRROR: %w", err)
	}
	reach, err := reach(o, mirrors, store)
	if err != nil {
		return nil, err
	}
	c, err := cloud.Open(ctx, cloud.Options{
		Dir: o.Dir, Driver: driver, Images: cloud.Layers(store, image.EnsureOptions{Mirrors: mirrors}), Reach: reach, Accounts: o.Accounts, AccountIDs: o.AccountIDs, RecycleBin: o.RecycleBin,
		Delays: delays, Faults: faults, Log: o.Log,
		Progress: func(p cloud.Progress) {
			if o.Progress != nil {
				o.Progress(Progress{Base: p.Base, Phase: p.Phase, Note: p.Note, Done: p.Done, Total: p.Total})
			}
		},
	})
	if err != nil {
		return nil, unusable(o.Dir, err)
	}
	shut := func(ctx context.Context) error {
		defer driver.Close()
		return c.Close(ctx)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, shut(ctx))
		}
	}()
	if o.Launches {
		driver.Prepare()
	}
	if err := able(o.Dir, bootID, func() error { return fatal(ctx, driver) }); err != nil {
		return nil, unusable(o.Dir, err)
	}
	if o.Listen == "" {
		o.Listen = "127.0.0.1:0"
	}
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", o.Listen)
	if err != nil {
		return nil, fmt.Errorf("cannot serve the local cloud: %w; choose another address with -listen", err)
	}
	if faults != nil && o.Rehearsing != nil {
		rules, _ := faults.Rules()
		o.Rehearsing(len(rules), faults.Seed())
	}
	seen := visible(c, "http://"+l.Addr().String())
	if o.Pages != nil {
		if pages := o.Pages(seen); pages != nil {
			c.ServePages(pages)
		}
	}
	var accounts []Account
	for _, k := range seen.Keys {
		accounts = append(accounts, k.Account)
	}
	key := c.Credentials()[0]
	serve, err := c.Server(l)
	if err != nil {
		return nil, unusable(o.Dir, err)
	}
	served := make(chan error, 1)
	go func() { served <- serve() }()
	return &Cloud{
		Dir: o.Dir, Endpoint: seen.Endpoint, AccessKey: key.AccessKeyID, SecretKey: key.SecretAccessKey,
		CredentialsFile: c.CredentialsFile(), Accounts: accounts, Served: served, Explain: explain(store), ExpectKey: c.ExpectKey,
		close: func(stop context.Context) error {
			if err := c.Drain(stop, o.Waiting); err != nil && stop.Err() == nil {
				return errors.Join(err, shut(stop), <-served)
			}
			ctx, cancel := context.WithTimeout(stop, shutdown)
			defer cancel()
			err := shut(ctx)
			return errors.Join(err, <-served)
		},
	}, nil
}

// visible returns the data of a cloud that its web pages show.
func visible(c *cloud.Cloud, endpoint string) Served {
	s := Served{Endpoint: endpoint, Looks: http.Header{}, Changes: c.Watch}
	for _, a := range c.Credentials() {
		s.Keys = append(s.Keys, Key{Account{a.Profile, a.Account}, a.AccessKeyID, a.SecretAccessKey})
	}
	s.Looks.Set(c.Looks())
	s.Calls = func() (calls []Call) {
		for _, call := range c.Calls() {
			calls = append(calls, Call(call))
		}
		return calls
	}
	return s
}

// unusable adds advice to an error if the directory of the local cloud cannot be made or
// written to, or if its disk is full.
func unusable(dir string, err error) error {
	switch {
	case errors.Is(err, image.ErrFull): // which says what to do
		return fmt.Errorf("%w; or set BAKE_CLOUD_DIR to use another directory", err)
	case durable.IsFull(err):
		return fmt.Errorf("there is no room for the local cloud: %w; free some space on the disk of its directory%s, or set BAKE_CLOUD_DIR to use another", err, durable.Left(dir))
	case errors.Is(err, syscall.EROFS), (errors.Is(err, fs.ErrPermission) || errors.Is(err, syscall.ENOTDIR) || noPlace(err)) && concerns(dir, err):
		return fmt.Errorf("the directory of the local cloud cannot be written to: %w; set BAKE_CLOUD_DIR to use another directory", err)
	}
	return err
}

// Trouble explains why nothing can be written to the local cloud in dir while it is in use, and what
// to do. It is empty if that is possible.
func Trouble(dir string) string {
	for _, sub := range []string{"", "ec2/instances", "images/layers"} {
		if name := filepath.Join(dir, sub); !isDir(name) {
			return fmt.Sprintf("%s, which the local cloud needs, was deleted while it was in use. The local cloud makes it again when it is opened", name)
		}
	}
	room, err := durable.RoomFor(dir)
	switch {
	case err != nil:
		return ""
	case room.ReadOnly:
		return fmt.Sprintf("The disk of the local cloud in %s is mounted read-only, or has become that after an error, which dmesg shows. Make it writable, or set BAKE_CLOUD_DIR to use another directory", dir)
	case room.Full():
		return fmt.Sprintf("The disk of the local cloud in %s was full: %s. Machines write there too, whatever the size of their own disks. Free some space on it, such as with \"bake cloud cache -clear\", or set BAKE_CLOUD_DIR to use another directory", dir, room)
	}
	return ""
}

func isDir(name string) bool {
	info, err := os.Stat(name)
	return err == nil && info.IsDir()
}

// noPlace reports whether err is that of a directory that cannot be made although the one above
// it exists, as in /proc.
func noPlace(err error) bool {
	at, ok := errors.AsType[*fs.PathError](err)
	return ok && at.Op == "mkdir" && errors.Is(at.Err, fs.ErrNotExist)
}

// concerns reports whether err is about dir, something in it, or a directory above it.
func concerns(dir string, err error) bool {
	if strings.Contains(err.Error(), dir) {
		return true
	}
	at, ok := errors.AsType[*fs.PathError](err)
	return ok && strings.HasPrefix(dir, strings.TrimSuffix(at.Path, "/")+"/")
}

// rehearsal reads the delays and faults of o. The delays in o take precedence over those in
// the faults file.
func rehearsal(o Options) (delays cloud.Delays, faults *cloud.Faults, err error) {
	if o.Faults != "" {
		r, err := cloud.LoadRehearsal(o.Faults)
		if err != nil {
			return delays, nil, fmt.Errorf("-faults: %w", err)
		}
		delays, faults = r.Delays, r.Faults
	}
	if o.Delays == "" {
		return delays, faults, nil
	}
	text := []byte(o.Delays)
	if !json.Valid(text) { // the name of a profile
		if text, err = json.Marshal(o.Delays); err != nil {
			return delays, nil, err
		}
	}
	if err := json.Unmarshal(text, &delays); err != nil {
		return delays, nil, &DelaysError{err}
	}
	return delays, faults, nil
}

// open opens the stores of the machines and images of the cloud in dir. Both may be shared
// with the process that serves the cloud.
func open(dir string, log *slog.Logger) (*sandbox.Driver, *image.Store, error) {
	driver, holds, err := driverOf(dir, log)
	if err != nil {
		return nil, nil, err
	}
	if err := driver.Claim(holds); err != nil {
		return nil, nil, owned(err)
	}
	store, err := image.Open(filepath.Join(dir, "images"), driver)
	return driver, store, err
}

// driverOf returns a driver of machines in dir, and whether dir holds files of machines, of which
// all begin with the layers of an image. If these files were made with one id, so are further ones,
// even if this user has a range of ids by now: their owners are lost. If dir cannot be read, the
// driver is returned with the error.
func driverOf(dir string, log *slog.Logger) (_ *sandbox.Driver, holds bool, err error) {
	driver, err := sandbox.New(sandbox.Options{Dir: dir, Log: log})
	if err != nil {
		return nil, false, err
	}
	layers, err := os.ReadDir(filepath.Join(dir, "images", "layers"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, syscall.ENOTDIR) {
		return driver, false, err
	}
	holds = len(layers) > 0
	if _, err := driver.CheckOwners(holds); err != nil {
		if other, ok := errors.AsType[*sandbox.OwnersError](err); ok && other.Mode != "" {
			driver, err := sandbox.New(sandbox.Options{Dir: dir, Log: log, Mode: other.Mode})
			return driver, holds, err
		}
	}
	return driver, holds, nil
}

// owned adds advice to an error about the owners of files.
func owned(err error) error {
	if other, ok := errors.AsType[*sandbox.OwnersError](err); ok {
		return fmt.Errorf("%w: %s", err, ownedAdvice(other))
	}
	return err
}

// ownedAdvice says what to do about files of machines that belong to other ids.
func ownedAdvice(e *sandbox.OwnersError) string {
	return e.Remedy + "; or set BAKE_CLOUD_DIR to use another directory, or delete this one as root"
}

// explain adds an explanation from the contents of the store. It ignores its own errors,
// so as not to hide the error being explained.
func explain(store *image.Store) func(string, []string, map[string][]string) string {
	return func(id string, owners []string, filters map[string][]string) string {
		text, err := store.Explain(id, owners, filters)
		if err != nil {
			return ""
		}
		return text
	}
}

// join returns the local cloud that another process serves, and keeps that process from
// ending. The error is [cloud.ErrClosing] if the process is already shutting down.
func join(ctx context.Context, o Options, other *cloud.InUseError) (_ *Cloud, err error) {
	use, err := cloud.Use(other.Dir)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, use.Close())
		}
	}()
	if now, err := Endpoint(other.Dir); err != nil || now != other.URL {
		return nil, cloud.ErrClosing // it has ended in the meantime
	}
	file := filepath.Join(other.Dir, "aws", "credentials")
	profile, err := config.LoadSharedConfigProfile(ctx, "default", func(o *config.LoadSharedConfigOptions) {
		o.CredentialsFiles, o.ConfigFiles = []string{file}, nil
	})
	if err != nil {
		return nil, fmt.Errorf("the local cloud that process %d serves: %w", other.PID, err)
	}
	_, store, err := open(other.Dir, o.Log)
	if err != nil {
		return nil, err
	}
	key := profile.Credentials
	return &Cloud{
		Explain: explain(store), Dir: other.Dir,
		Endpoint: other.URL, AccessKey: key.AccessKeyID, SecretKey: key.SecretAccessKey, CredentialsFile: file, ServedBy: other.PID,
		close: func(context.Context) error { return use.Close() },
	}, nil
}

// Examine tests everything that the machines of the cloud in dir need from the host, and leaves
// nothing behind. When ctx ends, the error is its cause, and the findings so far are returned
// too.
func Examine(ctx context.Context, dir string, log *slog.Logger) ([]Finding, error) {
	driver, holds, bad := driverOf(dir, log)
	if driver == nil {
		return nil, bad
	}
	if bad == nil {
		_, bad = driver.CheckOwners(holds)
	}
	found, err := findings(ctx, driver)
	if bad == nil {
		return found, err
	}
	f := Finding{Name: "files of machines", Fatal: true, Detail: bad.Error()}
	if other, ok := errors.AsType[*sandbox.OwnersError](bad); ok {
		f.Remedy = ownedAdvice(other)
	}
	return append(found, f), err
}

// findings returns the findings of driver. If ctx has ended, they are incomplete, and
// the error is its cause.
func findings(ctx context.Context, driver *sandbox.Driver) (out []Finding, err error) {
	for _, f := range driver.Check(ctx) {
		if f.StateDir {
			f.Remedy += "; BAKE_CLOUD_DIR names the directory"
		}
		out = append(out, Finding{Name: f.Name, OK: f.OK, Fatal: f.Fatal, Detail: f.Detail, Remedy: f.Remedy})
	}
	return out, context.Cause(ctx)
}

const bootID = "/proc/sys/kernel/random/boot_id"

// able returns the error of try. It skips try if try has succeeded for the cloud in dir
// since the host was started, whose boot id is in the file boot: the checks take longer
// than many calls. A later problem is reported when a machine does not start.
func able(dir, boot string, try func() error) error {
	now, err := os.ReadFile(boot)
	if err != nil {
		return try()
	}
	path := filepath.Join(dir, "host")
	if known, err := os.ReadFile(path); err == nil && bytes.Equal(known, now) {
		return nil
	}
	if err := try(); err != nil {
		return err
	}
	return os.WriteFile(path, now, 0o600)
}

// fatal returns an error that lists the missing requirements without which no machine
// can run.
func fatal(ctx context.Context, driver *sandbox.Driver) error {
	found, err := findings(ctx, driver)
	if err != nil {
		return err
	}
	var texts []string
	for _, f := range found {
		if f.Fatal && !f.OK {
			texts = append(texts, f.String())
		}
	}
	if texts == nil {
		return nil
	}
	return errors.New("local machines cannot run on this host (run bake doctor for details)\n" + strings.Join(texts, "\n"))
}

// Reset deletes the contents of the cloud that o names, except for its bases if keepBases
// is set. It fails while the cloud is in use.
func Reset(ctx context.Context, o Options, keepBases bool) error {
	// Opening the cloud ensures that no other process uses it, and that no machine runs.
	c, err := Serve(ctx, o)
	if err != nil {
		return err
	}
	if err := c.Close(ctx); err != nil {
		return err
	}
	driver, err := sandbox.New(sandbox.Options{Dir: o.Dir, Log: o.Log})
	if err != nil {
		return err
	}
	names := cloud.StateNames()
	if !keepBases {
		names = append(names, "images")
	}
	for _, name := range names {
		if err := driver.Remove(ctx, o.Dir+"/"+name); err != nil {
			return err
		}
	}
	return nil
}
