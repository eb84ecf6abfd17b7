package contents

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"debug/buildinfo"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strconv"
	"strings"

	"bake/internal/shellquote"
)

// Shell runs a script in a POSIX shell of a machine, as a user with permission to read
// what is installed there, and writes the script's output to out. It fails if the exit
// status is not 0. Other output before and after, such as a greeting, is ignored.
type Shell func(ctx context.Context, script string, out io.Writer) error

// FromMachine reads what is installed below the folder root of a machine, with a few
// calls of sh. It writes nothing there. The machine needs find, grep, xargs, dd and
// base64.
func FromMachine(ctx context.Context, sh Shell, root string) (*Contents, error) {
	m := &machine{sh: sh, root: root, files: map[string]*sparse{}, left: maxTotal, room: maxTotal}
	if err := m.list(ctx); err != nil {
		return nil, fmt.Errorf("listing the installed packages: %w", err)
	}
	if err := m.fetch(ctx); err != nil {
		return nil, fmt.Errorf("reading the installed packages: %w", err)
	}
	c, err := read(m)
	if err != nil {
		return nil, err
	}
	c.Problems = append(c.Problems, m.problems...)
	slices.Sort(c.Problems)
	return c, nil
}

// machine is the file tree of a machine, as far as it was fetched.
type machine struct {
	sh       Shell
	root     string
	files    map[string]*sparse
	sorted   []string
	problems []string
	left     int64 // remaining limit on bytes received
	room     int64 // remaining limit on bytes kept
}

func (m *machine) paths() []string {
	if m.sorted == nil {
		for p := range m.files {
			m.sorted = append(m.sorted, p)
		}
		slices.Sort(m.sorted)
	}
	return m.sorted
}

func (m *machine) open(path string) (io.ReaderAt, int64, error) {
	f := m.files[path]
	return f, f.size(), nil
}

// begin is printed before the output of a script and before each of its parts.
const begin = "\x01bake "

// listing is the script that lists files, with a part for each kind.
const listing = `
for c in find grep xargs dd base64; do command -v "$c" >/dev/null || { echo "the machine has no $c, which is needed to read it" >&2; exit 1; }; done
part() { printf '\n\001bake %s\n' "$1"; }
part files
for f in FIXED; do if [ -f "$f" ]; then echo "$f"; fi; done
find var/lib/dpkg/status.d -type f 2>/dev/null
find LANGUAGES -type f \( -name METADATA -o -name PKG-INFO -o -name '*.egg-info' -o -name package.json \) 2>/dev/null
part programs
find PROGRAMS -type f -perm -0100 -exec grep -l 'Go buildinf:' {} + 2>/dev/null
part owned
find var/lib/dpkg/info -name '*.list' -exec grep -h -e '/METADATA$' -e '/PKG-INFO$' -e '[.]egg-info$' -e '/package[.]json$' -e '^/usr/local/' -e '^/opt/' {} + 2>/dev/null
part licenses
for f in usr/share/doc/*/copyright; do if [ -f "$f" ]; then printf '%s\0' "$f"; fi; done | xargs -0 grep -H -e '^Format:' -e '^License:' 2>/dev/null
part end
`

// run runs a script in the root folder and passes its output, from begin on, to parse.
func (m *machine) run(ctx context.Context, script string, parse func(*bufio.Reader) error) error {
	intro := "LC_ALL=C; export LC_ALL\ncd " + shellquote.Join(m.root) + " || exit 1\n"
	pr, pw := io.Pipe()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	done := make(chan error, 1)
	go func() {
		limited := &io.LimitedReader{R: pr, N: m.left + 1}
		err := parse(bufio.NewReaderSize(limited, 1<<16))
		if m.left = limited.N - 1; m.left < 0 {
			err = fmt.Errorf("the machine sends more than %d MB", maxTotal>>20)
		}
		if err == nil { // check that nothing follows
			if _, end := io.CopyN(io.Discard, pr, 1<<16); end == nil {
				err = errors.New("the machine sends more than was requested")
			}
		}
		if err != nil {
			cancel(err)
			pr.CloseWithError(err)
		}
		done <- err
	}()
	err := m.sh(ctx, intro+script+"\nexit 0\n", pw)
	pw.CloseWithError(err) // or, without one, the end
	if parsed := <-done; parsed != nil {
		return parsed // which is err, if that came first
	}
	return err
}

// line reads a line of at most 64 kB.
func line(r *bufio.Reader) (string, error) {
	b, err := r.ReadSlice('\n')
	switch {
	case errors.Is(err, bufio.ErrBufferFull):
		return "", errors.New("the machine sends a line that does not end")
	case errors.Is(err, io.EOF):
		return "", errors.New("the output of the machine ends early")
	}
	return strings.TrimSuffix(string(b[:max(len(b)-1, 0)]), "\r"), err
}

// list finds the relevant files. The output also contains the relevant lines of license
// files and of dpkg's file lists.
func (m *machine) list(ctx context.Context) error {
	script := strings.NewReplacer(
		"FIXED", strings.Join(fixed(), " "), "LANGUAGES", strings.Join(languageDirs, " "), "PROGRAMS", strings.Join(programDirs, " "),
	).Replace(listing)
	part := ""
	var owned strings.Builder
	licenses := map[string]*strings.Builder{}
	err := m.run(ctx, script, func(r *bufio.Reader) error {
		for n := 0; part != "end"; {
			l, err := line(r)
			if err != nil {
				return err
			}
			if n++; n > 10*maxPaths {
				return fmt.Errorf("there are more than %d files to look at", maxPaths)
			}
			if name, ok := strings.CutPrefix(l, begin); ok {
				part = name
				continue
			}
			if part == "" || l == "" {
				continue
			}
			switch part {
			case "files", "programs":
				m.files[l] = &sparse{program: part == "programs"}
			case "owned":
				owned.WriteString(l + "\n")
			case "licenses":
				if p, text, ok := strings.Cut(l, ":"); ok {
					if licenses[p] == nil {
						licenses[p] = &strings.Builder{}
					}
					licenses[p].WriteString(text + "\n")
				}
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	m.forget()
	for p, text := range licenses {
		m.files[p] = wholeOf(text.String())
	}
	if owned.Len() > 0 {
		m.files["var/lib/dpkg/info/packages.list"] = wholeOf(owned.String())
	}
	if len(m.files) > maxPaths {
		return fmt.Errorf("there are more than %d files to look at", maxPaths)
	}
	return nil
}

// forget drops listed files that are not read: files that match by name only, and the RPM
// databases after the first.
func (m *machine) forget() {
	for p, f := range m.files {
		dir, _ := path.Split(p)
		if !f.program && !pythonFile(p) && !nodeFile(p) && !slices.Contains(fixed(), p) && dir != "var/lib/dpkg/status.d/" {
			delete(m.files, p)
		}
	}
	first := true
	for _, p := range rpmDatabases {
		if m.files[p] == nil {
			continue
		}
		if !first {
			delete(m.files, p)
			delete(m.files, p+"-wal")
		}
		first = false
	}
}

// Limits of one request. It fetches blocks: all blocks of a small file or a database, or
// only the needed ones of a program.
const (
	block      = 1 << 16
	maxRounds  = 12
	maxBlocks  = 256 // of a program
	wholeSmall = 16
	wholeBig   = maxFile/block + 1
	ahead      = 16 // of a program, from where data is needed
)

// want is a request for blocks of a file.
type want struct {
	path        string
	from, count int64
}

const fetching = `
if command -v gzip >/dev/null 2>&1; then z='gzip -1c'; else z=cat; fi
printf '\n\001bake %s\n' "$z"
g() { if [ -r "$2" ]; then printf '%s\n' "$1"; dd if="$2" bs=65536 skip="$3" count="$4" 2>/dev/null | $z | base64; else printf '!%s\n' "$1"; fi; echo; }
`

// fetch reads the content of the files: whole files, or for programs the parts that hold
// Go's build information.
func (m *machine) fetch(ctx context.Context) error {
	var wants []want
	for _, p := range m.paths() {
		switch f := m.files[p]; {
		case f.complete:
		case f.program:
			wants = append(wants, want{p, 0, 1})
		case pythonFile(p) || nodeFile(p):
			wants = append(wants, want{p, 0, wholeSmall})
		default:
			wants = append(wants, want{p, 0, wholeBig})
		}
	}
	for round := 0; len(wants) > 0; round++ {
		if err := m.get(ctx, wants); err != nil {
			return err
		}
		wants = wants[:0]
		for _, p := range m.paths() {
			f := m.files[p]
			if !f.program || f.failed {
				continue
			}
			f.missed = want{}
			_, _ = buildinfo.Read(f) // only its reads matter here
			switch {
			case f.missed.count == 0:
			case round == maxRounds || len(f.blocks) > maxBlocks:
				m.problem(p, "what Go says about it is spread too far")
			default:
				wants = append(wants, want{p, f.missed.from, min(max(f.missed.count, ahead), maxBlocks)})
			}
		}
	}
	return nil
}

func (m *machine) problem(p, why string) {
	m.problems = append(m.problems, p+": "+why)
	m.files[p].failed = true
}

// get requests blocks.
func (m *machine) get(ctx context.Context, wants []want) error {
	var script strings.Builder
	script.WriteString(fetching)
	for i, w := range wants {
		fmt.Fprintf(&script, "g %d %s %d %d\n", i, shellquote.Join(w.path), w.from, w.count)
	}
	return m.run(ctx, script.String(), func(r *bufio.Reader) error {
		how, begun := "", false
		for !begun {
			l, err := line(r)
			if err != nil {
				return err
			}
			how, begun = strings.CutPrefix(l, begin)
		}
		for i, w := range wants {
			id, err := line(r)
			if err != nil {
				return err
			}
			f := m.files[w.path]
			if id == "!"+strconv.Itoa(i) {
				m.problem(w.path, "permission denied")
				if _, err := line(r); err != nil {
					return err
				}
				continue
			}
			if id != strconv.Itoa(i) {
				return fmt.Errorf("the machine sends %.40q instead of %s", id, w.path)
			}
			data, err := decode(&untilBlank{r: r}, how != "cat", w.count*block)
			if err != nil {
				return fmt.Errorf("%s: %w", w.path, err)
			}
			if m.room -= int64(len(data)); m.room < 0 {
				return fmt.Errorf("the files to look at are larger than %d MB in total", maxTotal>>20)
			}
			f.store(w, data)
		}
		return nil
	})
}

// decode returns at most limit bytes.
func decode(r *untilBlank, compressed bool, limit int64) ([]byte, error) {
	in := base64.NewDecoder(base64.StdEncoding, r)
	if compressed {
		z, err := gzip.NewReader(in)
		if err != nil {
			return nil, err
		}
		in = z
	}
	data, err := io.ReadAll(io.LimitReader(in, limit))
	if err != nil {
		return nil, err
	}
	_, err = io.Copy(io.Discard, r) // to the blank line
	return data, err
}

// untilBlank reads lines up to a blank one.
type untilBlank struct {
	r    *bufio.Reader
	rest []byte
	done bool
}

func (u *untilBlank) Read(p []byte) (int, error) {
	if len(u.rest) == 0 && !u.done {
		l, err := line(u.r)
		if err != nil {
			return 0, err
		}
		u.rest, u.done = []byte(l), l == ""
	}
	if u.done {
		return 0, io.EOF
	}
	n := copy(p, u.rest)
	u.rest = u.rest[n:]
	return n, nil
}

// sparse is a file of which only some blocks are known.
type sparse struct {
	program  bool
	complete bool // whole is the complete file
	failed   bool
	whole    []byte
	blocks   map[int64][]byte
	missed   want // blocks that were missing in a read
}

func wholeOf(text string) *sparse { return &sparse{complete: true, whole: []byte(text)} }

func (f *sparse) size() int64 { return int64(len(f.whole)) }

func (f *sparse) store(w want, data []byte) {
	if !f.program {
		f.whole, f.complete = data, true
		return
	}
	if f.blocks == nil {
		f.blocks = map[int64][]byte{}
	}
	for i := range w.count {
		n := min(len(data), block)
		f.blocks[w.from+i] = data[:n:n]
		data = data[n:]
	}
}

// ReadAt implements [io.ReaderAt].
func (f *sparse) ReadAt(p []byte, off int64) (int, error) {
	if !f.program {
		return bytes.NewReader(f.whole).ReadAt(p, off)
	}
	if off < 0 {
		return 0, errors.New("negative offset")
	}
	n := 0
	for n < len(p) {
		at := off + int64(n)
		b, ok := f.blocks[at/block]
		if !ok {
			f.missed = want{from: at / block, count: (off+int64(len(p))-1)/block - at/block + 1}
			return n, errors.New("not there yet")
		}
		if at%block >= int64(len(b)) {
			return n, io.EOF
		}
		n += copy(p[n:], b[at%block:])
	}
	return n, nil
}
