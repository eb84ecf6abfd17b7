package winrmtest

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"bake/internal/powershelltest"
)

// Windows is a machine that does what Windows does with the command lines of bake: a
// drive C:, cmd.exe, PowerShell, shutdown, the task scheduler and the registry.
type Windows struct {
	Root     string            // what C:\ is here; names are in lower case
	Name     string            // of the computer
	Users    map[string]string // passwords of those who can run tasks; empty: a service account
	Registry map[string]bool   // the keys that exist

	// Restart is called when the machine goes down, and returns once it is back.
	Restart func()

	mu       sync.Mutex
	shutdown string // "", "scheduled" or "in progress"
	restarts int
	tasks    map[string]*task
}

// NewWindows is a machine for the time of a test.
func NewWindows(t testing.TB) *Windows {
	t.Helper()
	w := &Windows{
		Root: t.TempDir(), Name: "WIN-TEST", Registry: map[string]bool{}, tasks: map[string]*task{},
		Users: map[string]string{"Administrator": "it's a \"secret\" & $more`", "SYSTEM": ""},
	}
	for _, dir := range []string{"windows/temp", "users/administrator"} {
		if err := os.MkdirAll(filepath.Join(w.Root, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return w
}

// Tasks returns how many tasks the scheduler has.
func (w *Windows) Tasks() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.tasks)
}

// Restarts returns how often the machine has restarted.
func (w *Windows) Restarts() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.restarts
}

// Path returns where a file of the machine is here.
func (w *Windows) Path(name string) string {
	name = strings.ToLower(strings.ReplaceAll(name, `\`, "/"))
	home := "/users/administrator"
	switch {
	case strings.HasPrefix(name, "c:/"):
		name = name[2:]
	case strings.HasPrefix(name, "~"):
		name = home + name[1:]
	case !strings.HasPrefix(name, "/"):
		name = home + "/" + name
	}
	return filepath.Join(w.Root, filepath.Clean(name))
}

func (w *Windows) environment() map[string]string {
	return map[string]string{
		"OS": "Windows_NT", "COMPUTERNAME": w.Name, "SYSTEMROOT": `C:\Windows`, "TEMP": `C:\Windows\Temp`,
		"USERPROFILE": `C:\Users\Administrator`, "USERNAME": "Administrator",
	}
}

// run runs a command line as cmd.exe does, and returns its exit status.
func (w *Windows) run(ctx context.Context, line string, stdin io.Reader, stdout, stderr io.Writer) int {
	c := &cmd{w, ctx, w.environment(), stdin, stdout, stderr}
	code, _ := c.line(line)
	return code
}

// cmd is a cmd.exe that runs.
type cmd struct {
	*Windows
	ctx            context.Context
	env            map[string]string
	stdin          io.Reader
	stdout, stderr io.Writer
}

// pieces parts a line at what separates commands, outside of quotes.
func pieces(line string) (commands, separators []string) {
	start, quoted := 0, false
	for i := 0; i < len(line); i++ {
		switch {
		case line[i] == '"':
			quoted = !quoted
		case quoted:
		case strings.HasPrefix(line[i:], "&&") || strings.HasPrefix(line[i:], "||"):
			commands, separators = append(commands, line[start:i]), append(separators, line[i:i+2])
			i++
			start = i + 1
		case line[i] == '&' && (i == 0 || line[i-1] != '>'):
			commands, separators = append(commands, line[start:i]), append(separators, "&")
			start = i + 1
		}
	}
	return append(commands, line[start:]), separators
}

// line runs a command line. exit reports whether it has ended cmd.exe.
func (c *cmd) line(line string) (code int, exit bool) {
	commands, separators := pieces(powershelltest.Expand(c.env, line))
	for i, text := range commands {
		if i > 0 && (separators[i-1] == "&&" && code != 0 || separators[i-1] == "||" && code == 0) {
			continue
		}
		if c.ctx.Err() != nil {
			return 1, true
		}
		if code, exit = c.redirected(text); exit {
			return code, exit
		}
	}
	return code, false
}

var redirection = regexp.MustCompile(`^(.*?)\s*>\s*("[^"]*"|\S+)(\s+2>&1)?\s*$`)

func (c *cmd) redirected(text string) (int, bool) {
	text = strings.TrimLeft(text, " \t@")
	if n := strings.LastIndex(text, `"`); n >= 0 || strings.Contains(text, ">") {
		// A ">" within quotes is not a redirection.
		m := redirection.FindStringSubmatch(text)
		if m != nil && strings.Count(m[1], `"`)%2 == 0 {
			out := io.Discard
			if name := strings.Trim(m[2], `"`); !strings.EqualFold(name, "nul") {
				f, err := os.Create(c.Path(name))
				if err != nil {
					fmt.Fprint(c.stderr, "The system cannot find the path specified.\r\n")
					return 1, false
				}
				defer f.Close()
				out = f
			}
			into := *c
			into.stdout = out
			if m[3] != "" {
				into.stderr = out
			}
			return into.command(m[1])
		}
	}
	return c.command(text)
}

// program parts the first word of a command from the rest.
func program(text string) (word, rest string) {
	if strings.HasPrefix(text, `"`) {
		word, rest, _ = strings.Cut(text[1:], `"`)
		return word, strings.TrimLeft(rest, " ")
	}
	word, rest, _ = strings.Cut(text, " ")
	return word, rest
}

// conditional runs a command if a file exists.
func (c *cmd) conditional(rest string) (code int, exit bool) {
	words := argv(rest)
	if len(words) < 3 || !strings.EqualFold(words[0], "exist") {
		fmt.Fprintf(c.stderr, "a condition that is not known here: %q\r\n", rest)
		return 1, true
	}
	if _, err := os.Stat(c.Path(words[1])); err != nil {
		return 0, false
	}
	return c.command(strings.Join(words[2:], " "))
}

func (c *cmd) command(text string) (code int, exit bool) {
	name, rest := program(text)
	switch strings.ToLower(strings.TrimSuffix(strings.ToLower(name), ".exe")) {
	case "", "rem":
		return 0, false
	case "echo":
		if !strings.EqualFold(strings.TrimSpace(rest), "off") {
			fmt.Fprint(c.stdout, rest+"\r\n")
		}
		return 0, false
	case "set":
		name, value, _ := strings.Cut(strings.Trim(strings.TrimSpace(rest), `"`), "=")
		if !strings.HasPrefix(strings.TrimSpace(rest), `"`) {
			name, value, _ = strings.Cut(rest, "=")
		}
		c.env[strings.ToUpper(name)] = value
		return 0, false
	case "exit":
		code, _ = strconv.Atoi(strings.TrimSpace(strings.Replace(rest, "/b", "", 1)))
		return code, true
	case "del":
		for _, word := range argv(rest) {
			if !strings.HasPrefix(word, "/") {
				_ = os.Remove(c.Path(word))
			}
		}
		return 0, false
	case "if":
		return c.conditional(rest)
	case "type":
		b, err := os.ReadFile(c.Path(strings.Trim(rest, `" `)))
		if err != nil {
			fmt.Fprint(c.stderr, "The system cannot find the file specified.\r\n")
			return 1, false
		}
		_, _ = c.stdout.Write(b)
		return 0, false
	case "timeout":
		seconds, _ := strconv.Atoi(strings.TrimSpace(strings.TrimPrefix(rest, "/t")))
		select {
		case <-time.After(time.Duration(seconds) * time.Second):
			return 0, false
		case <-c.ctx.Done():
			return 1, true
		}
	case "cmd":
		return c.inner(rest), false
	case "call":
		return c.command(rest)
	case "powershell", "pwsh":
		return c.powerShell(c.ctx, argv(rest), c.env, c.stdin, c.stdout, c.stderr), false
	case "shutdown":
		return c.stop(argv(rest)), false
	}
	if b, err := os.ReadFile(c.Path(name)); err == nil && isBatch(name) {
		return c.batch(string(b))
	}
	fmt.Fprintf(c.stderr, "'%s' is not recognized as an internal or external command,\r\noperable program or batch file.\r\n", name)
	return 1, false
}

func isBatch(name string) bool {
	ext := strings.ToLower(filepath.Ext(name))
	return ext == ".bat" || ext == ".cmd"
}

// batch runs the lines of a batch file.
func (c *cmd) batch(text string) (code int, exit bool) {
	for line := range strings.Lines(text) {
		if strings.HasSuffix(line, "\n") && !strings.HasSuffix(line, "\r\n") {
			fmt.Fprintf(c.stderr, "a line without the line end of Windows: %q\r\n", line)
			return 1, true
		}
		line = unknown.ReplaceAllString(powershelltest.Expand(c.env, strings.TrimSpace(line)), "")
		if code, exit = c.line(line); exit {
			return code, false
		}
	}
	return code, false
}

// unknown are the variables that a batch file finds empty.
var unknown = regexp.MustCompile(`%[A-Za-z_0-9]+%`)

// inner is a cmd.exe with the arguments in rest.
func (c *cmd) inner(rest string) int {
	strip := false
	for {
		rest = strings.TrimLeft(rest, " ")
		word, after := program(rest)
		switch strings.ToLower(word) {
		case "/d":
		case "/s":
			strip = true
		case "/c":
			rest = strings.TrimSpace(after)
			if strings.HasPrefix(rest, `"`) && (strip || strings.Count(rest, `"`) != 2) {
				if end := strings.LastIndex(rest, `"`); end > 0 {
					rest = rest[1:end] + rest[end+1:]
				}
			}
			below := *c
			below.env = maps.Clone(c.env)
			code, _ := below.line(rest)
			return code
		default:
			fmt.Fprintf(c.stderr, "cmd.exe with arguments that are not known here: %q\r\n", rest)
			return 1
		}
		rest = after
	}
}

// argv parts arguments as programs of Windows do.
func argv(line string) (words []string) {
	var word strings.Builder
	quoted, any := false, false
	for i := 0; i < len(line); i++ {
		n := 0
		for i < len(line) && line[i] == '\\' {
			n++
			i++
		}
		if i < len(line) && line[i] == '"' {
			word.WriteString(strings.Repeat(`\`, n/2))
			if any = true; n%2 == 1 {
				word.WriteByte('"')
			} else {
				quoted = !quoted
			}
			continue
		}
		word.WriteString(strings.Repeat(`\`, n))
		if i == len(line) {
			break
		}
		if !quoted && (line[i] == ' ' || line[i] == '\t') {
			if any || word.Len() > 0 {
				words = append(words, word.String())
			}
			word.Reset()
			any = false
			continue
		}
		word.WriteByte(line[i])
	}
	if any || word.Len() > 0 {
		words = append(words, word.String())
	}
	return words
}

// powerShell is PowerShell with arguments.
func (w *Windows) powerShell(ctx context.Context, args []string, env map[string]string, stdin io.Reader, stdout, stderr io.Writer) int {
	h := &powershelltest.Host{
		Stdin: stdin, Stdout: stdout, Stderr: stderr, Env: maps.Clone(env), Path: w.Path, Windows: true,
		COM: map[string]powershelltest.Object{"Schedule.Service": service{w}, "registry": registry{w}},
	}
	h.Native = func(h *powershelltest.Host, words []string) int {
		c := &cmd{w, ctx, h.Env, h.Stdin, h.Stdout, h.Stderr}
		var errOut bytes.Buffer
		below := *c
		below.stderr = &errOut
		code, _ := below.command(strings.Join(words, " "))
		if strings.Contains(errOut.String(), "is not recognized as an internal") {
			return powershelltest.NotFound
		}
		_, _ = c.stderr.Write(errOut.Bytes())
		return code
	}
	return powershelltest.Main(h, args)
}

// The exit statuses of shutdown.exe.
const (
	inProgress   = 1115
	notScheduled = 1116
	scheduled    = 1190
)

// stop is shutdown.exe.
func (w *Windows) stop(args []string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	has := func(flag string) (string, bool) {
		for i, arg := range args {
			if strings.EqualFold(arg, flag) {
				return strings.Join(args[i+1:min(i+2, len(args))], ""), true
			}
		}
		return "", false
	}
	if _, abort := has("/a"); abort {
		if w.shutdown != "scheduled" {
			return notScheduled
		}
		w.shutdown = ""
		return 0
	}
	if _, restart := has("/r"); !restart {
		return 1
	}
	switch after, _ := has("/t"); {
	case w.shutdown == "in progress":
		return inProgress
	case w.shutdown == "scheduled":
		return scheduled
	case after != "0":
		w.shutdown = "scheduled"
		return 0
	}
	w.shutdown = "in progress"
	go func() {
		w.Restart()
		w.mu.Lock()
		defer w.mu.Unlock()
		w.shutdown = ""
		w.restarts++
	}()
	return 0
}

// registry answers PowerShell's Test-Path.
type registry struct{ w *Windows }

func (registry) Get(string) (any, error) { return nil, nil }
func (registry) Set(string, any) error   { return nil }
func (r registry) Call(_ string, args []any) (any, error) {
	r.w.mu.Lock()
	defer r.w.mu.Unlock()
	return r.w.Registry[fmt.Sprint(args[0])], nil
}
