package plugintest

import (
	"bytes"
	"context"
	"encoding/gob"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"sort"
	"strings"
	"time"

	"github.com/hashicorp/hcl/v2/hcldec"
	"github.com/zclconf/go-cty/cty"
	ctyjson "github.com/zclconf/go-cty/cty/json"

	"bake/plugin/wire"
)

type configureArgs struct{ Configs []any }

type basicError struct{ Message string }

func basic(text string) *basicError {
	if text == "" {
		return nil
	}
	return &basicError{text}
}

func (p *plugin) prepare(_ context.Context, a configureArgs) (any, error) {
	if err := p.configure(a.Configs); err != nil {
		return nil, err
	}
	if err := p.misbehave("X.Prepare"); err != nil {
		return nil, err
	}
	if text := p.complaints(); text != "" {
		return nil, errors.New(text)
	}
	return nil, nil
}

// talk prints the messages in the options.
func (p *plugin) talk(c *wire.Client) error {
	for method, text := range map[string]string{"Say": p.Say, "Message": p.Message, "Error": p.Error} {
		if text != "" {
			if err := call(c, "Ui."+method, text, nil); err != nil {
				return err
			}
		}
	}
	if p.Ask != "" {
		var answer string
		err := call(c, "Ui.Ask", p.Ask, &answer)
		p.journal("answer: %q %v", answer, err)
	}
	if p.Progress > 0 {
		var id string
		args := struct {
			Src                    string
			TotalSize, CurrentSize int64
		}{"https://example.com/a.b", int64(p.Progress), 0}
		if err := call(c, "Ui.NewTrackProgress", args, &id); err != nil {
			return err
		}
		for range 2 {
			if err := call(c, "Ui"+id+".Add", p.Progress/2, nil); err != nil {
				return err
			}
		}
		return call(c, "Ui"+id+".Close", nil, nil)
	}
	return nil
}

// builder makes a file, runs the provisioners on this host, and returns an artifact.
func (p *plugin) builder() wire.Methods {
	return wire.Methods{
		"Builder.ConfigSpec": configSpec, "Builder.Cancel": p.cancelled,
		"Builder.Prepare": wire.Handle(func(_ context.Context, a configureArgs) (any, error) {
			err := p.configure(a.Configs)
			if err == nil {
				err = p.misbehave("X.Prepare")
			}
			return struct {
				GeneratedVars, Warnings []string
				Error                   *basicError
			}{p.Generated, p.Warnings, basic(p.complaints())}, err
		}),
		"Builder.Run": wire.Handle(func(_ context.Context, stream uint32) (any, error) {
			host, err := p.dial(stream)
			if err != nil {
				return nil, err
			}
			defer host.Close()
			return p.build(host)
		}),
	}
}

func (p *plugin) build(host *wire.Client) (stream uint32, err error) {
	if p.Resource != "" {
		if err := os.WriteFile(p.Resource, []byte("resource"), 0o644); err != nil {
			return 0, err
		}
		defer func() {
			if err != nil {
				p.journal("teardown: %v", os.Remove(p.Resource))
			}
		}()
	}
	if err := p.talk(host); err != nil {
		return 0, err
	}
	if p.Home != "" {
		if err := p.provision(host); err != nil {
			return 0, err
		}
	}
	if err := p.misbehave("X.Build"); err != nil {
		return 0, err
	}
	if p.ctx.Err() != nil {
		return 0, errors.New("the build was cancelled")
	}
	if p.Returns == "nothing" {
		return 0, nil
	}
	return p.artifact("probe-image", p.Files), nil
}

// provision runs the hook. Like the SDK, it does not wait for it when it is cancelled.
func (p *plugin) provision(host *wire.Client) error {
	values := map[string]any{
		"ID": "probe-1", "Host": "192.0.2.7", "Port": 2222, "User": "probe", "Password": "pass-of-the-probe", "ConnType": "ssh", "SSHAgentAuth": false,
	}
	if p.Values != "" {
		if err := json.Unmarshal([]byte(p.Values), &values); err != nil {
			return err
		}
	}
	args := struct {
		Name     string
		Data     any
		StreamId uint32
	}{"packer_provision", values, p.listen(p.machine())}
	done := make(chan error, 1)
	go func() { done <- call(host, "Hook.Run", args, nil) }()
	select {
	case err := <-done:
		if err != nil {
			args.Name, args.StreamId = "packer_cleanup_provision", p.listen(p.machine())
			p.journal("cleanup: %v", call(host, "Hook.Run", args, nil))
		}
		return err
	case <-p.ctx.Done():
		_ = call(host, "Hook.Cancel", nil, nil)
		return errors.New("the build was cancelled")
	}
}

// artifact serves an artifact.
func (p *plugin) artifact(id string, files []string) uint32 {
	give := func(v any) wire.Method { return func(context.Context, any) (any, error) { return v, nil } }
	if files == nil {
		files = []string{}
	}
	return p.listen(wire.Methods{
		"Artifact.BuilderId": give("probe.builder"), "Artifact.Files": give(files),
		"Artifact.Id":     func(context.Context, any) (any, error) { return id, p.misbehave("X.Id") },
		"Artifact.String": give("An image of the probe" + strings.Repeat("!", p.Huge)),
		"Artifact.State": wire.Handle(func(_ context.Context, name string) (any, error) {
			if err := p.misbehave("X.State"); err != nil {
				return nil, err
			}
			p.journal("state %s", strings.SplitN(name, "-", 2)[0])
			switch name {
			case "diskName":
				return "disk-of-the-probe", nil
			case "generated_data":
				return map[string]any{"Colour": "blue", "Password": "pass-of-the-probe"}, nil
			}
			return nil, nil
		}),
		"Artifact.Destroy": func(context.Context, any) (any, error) {
			if err := p.misbehave("X.Destroy"); err != nil {
				return basic(err.Error()), nil // as the SDK does
			}
			for _, f := range files {
				if err := os.Remove(f); err != nil && !errors.Is(err, fs.ErrNotExist) {
					return basic(err.Error()), nil
				}
			}
			p.journal("destroyed %s", id)
			return nil, nil
		},
	})
}

type startArgs struct {
	Command                                                         string
	StdinStreamId, StdoutStreamId, StderrStreamId, ResponseStreamId uint32
}

// commandFinished is the message at the end of a command, in gob.
type commandFinished struct{ ExitStatus int }

// machine is the communicator of the builder: its machine is this host.
func (p *plugin) machine() wire.Methods {
	return wire.Methods{
		"Communicator.Start":  wire.Handle(p.startCommand),
		"Communicator.Upload": wire.Handle(p.upload),
		"Communicator.UploadDir": wire.Handle(func(_ context.Context, a dirArgs) (any, error) {
			return nil, copyDir(p.path(a.Dst), a.Src)
		}),
		"Communicator.DownloadDir": wire.Handle(func(_ context.Context, a dirArgs) (any, error) {
			return nil, copyDir(a.Dst, p.path(a.Src))
		}),
		"Communicator.Download": wire.Handle(p.download),
	}
}

// path returns the path on this host of a file of the machine.
func (p *plugin) path(name string) string {
	if filepath.IsAbs(name) {
		return name
	}
	return filepath.Join(p.Home, name)
}

func (p *plugin) startCommand(_ context.Context, a startArgs) (any, error) {
	if err := p.misbehave("X.Start"); err != nil {
		return nil, err
	}
	p.journal("command %s", a.Command)
	cmd := exec.Command("/bin/sh", "-c", a.Command)
	cmd.Dir, cmd.Env, cmd.WaitDelay = p.Home, append(os.Environ(), "HOME="+p.Home), time.Second
	var streams []io.Closer
	dial := func(id uint32) io.ReadWriteCloser {
		if id == 0 {
			return nil
		}
		c, err := p.mux.Dial(context.Background(), id)
		if err != nil {
			return nil
		}
		streams = append(streams, c)
		return c
	}
	if c := dial(a.StdinStreamId); c != nil {
		stdin, err := cmd.StdinPipe() // otherwise Wait would wait for input that nobody reads
		if err != nil {
			return nil, err
		}
		go func() {
			_, _ = io.Copy(stdin, c)
			stdin.Close()
		}()
	}
	if c := dial(a.StdoutStreamId); c != nil {
		cmd.Stdout = c
	}
	if c := dial(a.StderrStreamId); c != nil {
		cmd.Stderr = c
	}
	answer, err := p.mux.Dial(context.Background(), a.ResponseStreamId)
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		_ = cmd.Wait()
		code := cmd.ProcessState.ExitCode()
		if code < 0 {
			code = 128 + 9
		}
		_ = gob.NewEncoder(answer).Encode(commandFinished{code})
		answer.Close()
		for _, s := range streams {
			s.Close()
		}
	}()
	return nil, nil
}

type uploadArgs struct {
	Path           string
	ReaderStreamId uint32
	FileInfo       *fileInfo
}

func (p *plugin) upload(_ context.Context, a uploadArgs) (any, error) {
	if err := p.misbehave("X.Upload"); err != nil {
		return nil, err
	}
	in, err := p.mux.Dial(context.Background(), a.ReaderStreamId)
	if err != nil {
		return nil, err
	}
	defer in.Close()
	f, err := os.Create(p.path(a.Path))
	if err != nil {
		return nil, err
	}
	_, err = io.Copy(f, in)
	if err != nil && strings.Contains(err.Error(), "no space") {
		err = errors.New("the disk of the machine is full")
	}
	if a.FileInfo != nil && !strings.HasPrefix(a.Path, "/dev/") {
		err = errors.Join(err, f.Chmod(a.FileInfo.M.Perm()))
	}
	return nil, errors.Join(err, f.Close())
}

type downloadArgs struct {
	Path           string
	WriterStreamId uint32
}

func (p *plugin) download(_ context.Context, a downloadArgs) (any, error) {
	out, err := p.mux.Dial(context.Background(), a.WriterStreamId)
	if err != nil {
		return nil, err
	}
	defer out.Close()
	f, err := os.Open(p.path(a.Path))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	_, err = io.Copy(out, f)
	return nil, err
}

type fileInfo struct {
	N string
	S int64
	M fs.FileMode
	T time.Time
}

type dirArgs struct {
	Dst, Src string
	Exclude  []string
}

// copyDir is like cp -R, and keeps modes. Existing directories are not changed.
func copyDir(dst, src string) error {
	if !strings.HasSuffix(src, "/") {
		dst = filepath.Join(dst, filepath.Base(src))
	}
	return filepath.WalkDir(src, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(src, name)
		if err != nil {
			return err
		}
		info, err := d.Info()
		to := filepath.Join(dst, rel)
		if err != nil {
			return err
		}
		if d.IsDir() {
			if _, err := os.Stat(to); err == nil {
				return nil
			}
			defer func() { _ = os.Chmod(to, info.Mode().Perm()) }()
			return os.Mkdir(to, info.Mode().Perm()|0o700)
		}
		b, err := os.ReadFile(name)
		if err == nil {
			err = os.WriteFile(to, b, 0o600)
		}
		return errors.Join(err, os.Chmod(to, info.Mode().Perm()))
	})
}

// provisioner uploads, runs commands and downloads.
func (p *plugin) provisioner() wire.Methods {
	return wire.Methods{
		"Provisioner.ConfigSpec": configSpec, "Provisioner.Cancel": p.cancelled, "Provisioner.Prepare": wire.Handle(p.prepare),
		"Provisioner.Provision": wire.Handle(func(_ context.Context, a struct {
			GeneratedData map[string]any
			StreamID      uint32
		}) (any, error) {
			var pairs []string
			for k, v := range a.GeneratedData {
				pairs = append(pairs, fmt.Sprintf("%s=%T", k, v))
				if k != "Password" && k != "SSHPrivateKey" && k != "WinRMPassword" {
					pairs[len(pairs)-1] += fmt.Sprintf(":%v", v)
				}
			}
			sort.Strings(pairs)
			p.journal("data: %s", strings.Join(pairs, " "))
			host, err := p.dial(a.StreamID)
			if err != nil {
				return nil, err
			}
			defer host.Close()
			if err := p.talk(host); err != nil {
				return nil, err
			}
			err = p.onMachine(host)
			if p.ctx.Err() != nil {
				for _, line := range p.Late {
					out, code, err := p.run(host, line)
					p.journal("late %s: %q %d %v", line, out, code, err)
				}
				err = p.ctx.Err()
			}
			return nil, err
		}),
	}
}

func (p *plugin) onMachine(host *wire.Client) error {
	if err := p.misbehave("X.Machine"); err != nil {
		return err
	}
	if len(p.Upload) == 2 {
		if err := p.send(host, p.Upload[0], p.Upload[1]); err != nil {
			return err
		}
	}
	for method, pair := range map[string][]string{"UploadDir": p.UpDir, "DownloadDir": p.DownDir} {
		if len(pair) == 2 {
			if err := call(host, "Communicator."+method, dirArgs{Dst: pair[1], Src: pair[0], Exclude: []string{}}, nil); err != nil {
				return fmt.Errorf("%s: %w", method, err)
			}
		}
	}
	for _, line := range p.Commands {
		out, code, err := p.run(host, line)
		p.journal("ran %s: %q %d", line, out, code)
		if err == nil && code != 0 {
			err = fmt.Errorf("%s: exit status %d", line, code)
		}
		if err != nil {
			return err
		}
		if out != "" {
			if err := call(host, "Ui.Message", out, nil); err != nil {
				return err
			}
		}
		if err := p.ctx.Err(); err != nil {
			return err
		}
	}
	if len(p.Download) == 2 {
		return p.fetch(host, p.Download[0], p.Download[1])
	}
	return nil
}

// send uploads a file to the machine.
func (p *plugin) send(host *wire.Client, src, dst string) error {
	b, err := os.ReadFile(src)
	if err != nil {
		return err
	}
	info, err := os.Stat(src)
	if err != nil {
		return err
	}
	id, accept := p.mux.Listen()
	go func() {
		if c, err := accept(p.ctx); err == nil {
			_, _ = c.Write(b)
			c.Close()
		}
	}()
	args := uploadArgs{dst, id, &fileInfo{info.Name(), info.Size(), info.Mode(), info.ModTime()}}
	if err := call(host, "Communicator.Upload", args, nil); err != nil {
		return fmt.Errorf("upload: %w", err)
	}
	return nil
}

// fetch downloads a file from the machine.
func (p *plugin) fetch(host *wire.Client, src, dst string) error {
	id, accept := p.mux.Listen()
	got := make(chan []byte, 1)
	go func() {
		var b []byte
		if c, err := accept(p.ctx); err == nil {
			b, _ = io.ReadAll(c)
		}
		got <- b
	}()
	if err := call(host, "Communicator.Download", downloadArgs{src, id}, nil); err != nil {
		return fmt.Errorf("download: %w", err)
	}
	return os.WriteFile(dst, <-got, 0o644)
}

// run runs a command on the machine.
func (p *plugin) run(host *wire.Client, line string) (out string, code int, err error) {
	var buf bytes.Buffer
	id, accept := p.mux.Listen()
	read := make(chan struct{})
	go func() {
		defer close(read)
		if c, err := accept(context.Background()); err == nil {
			_, _ = io.Copy(&buf, c)
		}
	}()
	end, acceptEnd := p.mux.Listen()
	code = 123
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		var fin commandFinished
		if c, err := acceptEnd(context.Background()); err == nil && gob.NewDecoder(c).Decode(&fin) == nil {
			code = fin.ExitStatus
		}
	}()
	if err := call(host, "Communicator.Start", startArgs{Command: line, StdoutStreamId: id, ResponseStreamId: end}, nil); err != nil {
		return "", 0, err
	}
	<-ended
	<-read
	return buf.String(), code, nil
}

// postProcessor makes an artifact from its input.
func (p *plugin) postProcessor() wire.Methods {
	return wire.Methods{
		"PostProcessor.ConfigSpec": configSpec, "PostProcessor.Cancel": p.cancelled, "PostProcessor.Configure": wire.Handle(p.prepare),
		"PostProcessor.PostProcess": wire.Handle(func(_ context.Context, stream uint32) (any, error) {
			type answer struct {
				Err                 *basicError
				Keep, ForceOverride bool
				StreamId            uint32
			}
			host, err := p.dial(stream)
			if err == nil {
				err = p.talk(host)
			}
			if err == nil {
				err = p.misbehave("X.Process")
			}
			if err != nil {
				return answer{Err: basic(err.Error())}, nil
			}
			var id, text string
			var files []string
			var state any
			if err := errors.Join(call(host, "Artifact.Id", nil, &id), call(host, "Artifact.String", nil, &text),
				call(host, "Artifact.Files", nil, &files), call(host, "Artifact.State", p.State, &state)); err != nil {
				return answer{Err: basic(err.Error())}, nil
			}
			p.journal("input %s %q %q %v", id, text, files, state)
			a := answer{Keep: p.Keep, ForceOverride: p.Force}
			switch p.Returns {
			case "nothing":
			case "input":
				a.StreamId = p.listen(relay(host))
			default:
				a.StreamId = p.artifact("processed-"+id, p.Files)
			}
			return a, nil
		}),
	}
}

// relay serves the host's own artifact to the host.
func relay(host *wire.Client) wire.Methods {
	m := wire.Methods{}
	for _, name := range []string{"BuilderId", "Id", "String", "Files", "State", "Destroy"} {
		m["Artifact."+name] = func(_ context.Context, a any) (v any, err error) {
			err = call(host, "Artifact."+name, a, &v)
			return v, err
		}
	}
	return m
}

// dataSource returns the object in its options.
func (p *plugin) dataSource() wire.Methods {
	return wire.Methods{
		"Datasource.ConfigSpec": configSpec,
		"Datasource.Configure": wire.Handle(func(_ context.Context, a configureArgs) (any, error) {
			err := p.configure(a.Configs)
			if err == nil {
				err = p.misbehave("X.Prepare")
			}
			return struct{ Error *basicError }{basic(p.complaints())}, err
		}),
		"Datasource.OutputSpec": func(context.Context, any) (any, error) {
			b, err := wire.EncodeSpec(hcldec.ObjectSpec{
				"text": &hcldec.AttrSpec{Name: "text", Type: cty.String}, "list": &hcldec.AttrSpec{Name: "list", Type: cty.List(cty.Number)},
			})
			return struct{ OutputSpec []byte }{b}, err
		},
		"Datasource.Execute": func(context.Context, any) (any, error) {
			type answer struct {
				Value []byte
				Error *basicError
			}
			if p.Text != "" {
				return answer{Error: basic(p.Text)}, nil
			}
			t, err := ctyjson.ImpliedType([]byte(p.Output))
			if err != nil {
				return nil, err
			}
			v, err := ctyjson.Unmarshal([]byte(p.Output), t)
			if err != nil {
				return nil, err
			}
			b, err := wire.EncodeValue(v)
			return answer{Value: b}, err
		},
	}
}
