package winrm

import (
	"bufio"
	"context"
	_ "embed"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"
	"unicode/utf16"

	"bake/communicator"
)

//go:embed put.ps1
var putScript string

//go:embed get.ps1
var getScript string

// powerShell returns the command line that runs a script in PowerShell, which
// reads its input as the script's.
func powerShell(script string) string {
	var b []byte
	for _, unit := range utf16.Encode([]rune(script)) {
		b = binary.LittleEndian.AppendUint16(b, unit)
	}
	return "powershell.exe -NoProfile -NonInteractive -ExecutionPolicy Bypass -EncodedCommand " + base64.StdEncoding.EncodeToString(b)
}

// compact removes the comments and indentation from a script, except from its first line:
// cmd.exe accepts lines of at most 8191 characters, and encoding almost triples the size.
func compact(script string) string {
	var out []string
	for i, line := range strings.Split(script, "\n") {
		line = strings.TrimSpace(line)
		if i == 0 || line != "" && line[0] != '#' {
			out = append(out, line)
		}
	}
	return strings.Join(out, "\n")
}

func encode(name string) string { return base64.StdEncoding.EncodeToString([]byte(name)) }

// The exit statuses of the scripts.
const (
	statusMissing = 3
	statusFull    = 4
)

// Put implements [communicator.Communicator]. A single PowerShell process reads all files
// from its input and writes them. Windows has no permission bits, so none are set.
func (c *Client) Put(ctx context.Context, dst string, src fs.FS) error {
	in, out := io.Pipe()
	defer func() { _ = in.Close() }()
	go func() { out.CloseWithError(send(out, src)) }()
	stderr := communicator.Head{Max: 4 << 10}
	script := strings.Replace(compact(putScript), "%ROOT%", encode(dst), 1)
	status, err := c.Run(ctx, communicator.Command{Line: powerShell(script), Stdin: in, Stderr: &stderr})
	if err != nil {
		return err
	}
	return transferError("put", dst, status, stderr.String())
}

func transferError(op, name string, status communicator.Status, stderr string) error {
	text := strings.TrimSpace(stderr)
	switch status.Code {
	case 0:
		return nil
	case statusMissing:
		return &fs.PathError{Op: op, Path: name, Err: fs.ErrNotExist}
	case statusFull:
		return &fs.PathError{Op: op, Path: name, Err: fmt.Errorf("the disk of the machine is full: %s", text)}
	}
	return &fs.PathError{Op: op, Path: name, Err: fmt.Errorf("PowerShell ended with status %d: %s", status.Code, text)}
}

// lineData is the number of bytes of a file in one line, which base64 makes a third longer.
const lineData = 72 << 10

// send writes the files of src as put.ps1 reads them.
func send(w io.Writer, src fs.FS) error {
	b := bufio.NewWriterSize(w, chunk)
	buf := make([]byte, lineData)
	err := walk(src, ".", nil, func(name string, dir bool) error {
		if dir {
			_, err := fmt.Fprintf(b, "d %s\r\n", encode(name))
			return err
		}
		f, err := src.Open(name)
		if err != nil {
			return err
		}
		defer f.Close()
		if _, err := fmt.Fprintf(b, "f %s\r\n", encode(name)); err != nil {
			return err
		}
		for {
			n, err := io.ReadFull(f, buf)
			if n > 0 {
				if _, err := fmt.Fprintf(b, "c %s\r\n", base64.StdEncoding.EncodeToString(buf[:n])); err != nil {
					return err
				}
			}
			if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
				_, err := b.WriteString("e\r\n")
				return err
			}
			if err != nil {
				return err
			}
		}
	})
	if err != nil {
		return err
	}
	return b.Flush()
}

// maxDepth is the maximum depth of a tree. A deeper tree contains a link to itself.
const maxDepth = 100

// walk calls visit for each directory and file of src below dir, following links
// as src does.
func walk(src fs.FS, dir string, above []string, visit func(name string, dir bool) error) error {
	if len(above) > maxDepth {
		return fmt.Errorf("%s: the tree is too deep; is there a link to a parent directory?", dir)
	}
	entries, err := fs.ReadDir(src, dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		name := path.Join(dir, e.Name())
		info, err := fs.Stat(src, name)
		if err != nil {
			return err
		}
		if err := visit(name, info.IsDir()); err != nil {
			return err
		}
		if info.IsDir() {
			if err := walk(src, name, append(above, name), visit); err != nil {
				return err
			}
		}
	}
	return nil
}

// Get implements [communicator.Communicator]. Files are written with mode 0644.
func (c *Client) Get(ctx context.Context, src string, dst *os.Root) error {
	root, contents := strings.CutSuffix(src, "/.")
	if !contents {
		root, contents = strings.CutSuffix(src, `\.`)
	}
	flag := "no"
	if contents {
		flag = "yes"
	}
	script := strings.NewReplacer("%ROOT%", encode(root), "%CONTENTS%", flag).Replace(compact(getScript))
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	in, out := io.Pipe()
	received := make(chan error, 1)
	go func() {
		err := receive(in, dst)
		if err != nil {
			cancel(err)
		}
		in.CloseWithError(err)
		received <- err
	}()
	stderr := communicator.Head{Max: 4 << 10}
	status, err := c.Run(ctx, communicator.Command{Line: powerShell(script), Stdout: out, Stderr: &stderr})
	_ = out.Close()
	if got := <-received; got != nil && (err != nil || status.Code == 0) {
		return got
	}
	if err != nil {
		return err
	}
	return transferError("get", src, status, stderr.String())
}

// longestLine is above the length of any line that get.ps1 writes.
const longestLine = 256 << 10

// receive writes into dst what get.ps1 sends.
func receive(r io.Reader, dst *os.Root) (err error) {
	lines := bufio.NewReaderSize(r, longestLine)
	var file *communicator.PartialFile
	defer func() {
		if file != nil {
			err = errors.Join(err, file.Finish(err))
		}
	}()
	for {
		text, err := lines.ReadSlice('\n')
		line := string(text)
		if errors.Is(err, io.EOF) && line == "" {
			if file != nil {
				return io.ErrUnexpectedEOF
			}
			return nil
		} else if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		kind, rest, _ := strings.Cut(strings.TrimRight(line, "\r\n"), " ")
		data, err := base64.StdEncoding.DecodeString(rest)
		if err != nil {
			return fmt.Errorf("the machine sent something that is not a file: %.40q", line)
		}
		switch kind {
		case "d":
			if err = communicator.CheckNesting(string(data)); err == nil {
				err = dst.MkdirAll(string(data), 0o755)
			}
		case "f":
			if file != nil {
				return fmt.Errorf("the machine sent a file within a file: %q", data)
			}
			file, err = communicator.CreateFile(dst, string(data), 0o644)
		case "c", "e":
			if file == nil {
				return fmt.Errorf("the machine sent content without a file")
			}
			if _, err = file.Write(data); err == nil && kind == "e" {
				err = file.Finish(nil)
				file = nil
			}
		case "":
		default:
			return fmt.Errorf("the machine sent something that is not a file: %.40q", line)
		}
		if err != nil {
			return err
		}
	}
}
