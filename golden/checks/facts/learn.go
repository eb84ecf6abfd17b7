package facts

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	_ "embed"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"slices"
	"sort"
	"strconv"
	"strings"
	"time"

	"bake/communicator"
	"bake/internal/prose"
	"bake/internal/shellquote"
)

// As is the user that queries a machine.
type As bool

// The users. Root is reached with "sudo -n" if the login user is another one.
const (
	Login As = false
	Root  As = true
)

// Limits on the answers of a machine.
const (
	maxText  = 4 << 20   // of one file or output
	maxTotal = 128 << 20 // of the transmitted base64 text
	maxLine  = 100 << 10 // of a command, which Linux must accept as one argument
)

// patience is how long a machine may take for everything except commands.
const patience = 3 * time.Minute

// workers is the number of commands that run at a time.
const workers = 8

// Learn queries a machine with a POSIX shell. It returns an answer for each question, in
// order, with a fact for each attribute. The error is not nil only if the machine could
// not be queried, or if its output cannot be parsed.
func Learn(ctx context.Context, c communicator.Communicator, as As, questions []Question) ([]Answer, error) {
	answers := make([]Answer, len(questions))
	forward, _ := c.(communicator.Forwarder)
	p := newPlan()
	readers := map[int]reader{}
	var dialed []int
	for i, q := range questions {
		switch {
		case Refused(q) != "":
			answers[i] = all(unknown(Refused(q)), q)
		case forward != nil && q.dialed():
			dialed = append(dialed, i)
			if read := askFiles(p, q); read != nil {
				readers[i] = read
			}
		default:
			readers[i] = q.subject().ask(p, q)
		}
	}
	if err := p.answer(ctx, c, as, readers, answers); err != nil {
		return nil, err
	}
	rest, err := reach(ctx, forward, questions, dialed, answers)
	if err != nil {
		return nil, err
	}
	p, readers = newPlan(), map[int]reader{}
	for _, i := range rest { // queries that the machine has to run itself
		readers[i] = questions[i].subject().ask(p, questions[i])
	}
	if err := p.answer(ctx, c, as, readers, answers); err != nil {
		return nil, err
	}
	for i, q := range questions {
		answers[i] = only(answers[i], q)
	}
	return answers, nil
}

// reader converts replies to an answer.
type reader func([]reply) Answer

// answer runs the queries of a plan, and calls the readers to fill in their answers.
func (p *plan) answer(ctx context.Context, c communicator.Communicator, as As, readers map[int]reader, answers []Answer) error {
	replies, err := p.run(ctx, c, as)
	if err != nil {
		return err
	}
	for i, read := range readers {
		answers[i] = read(replies)
	}
	return nil
}

// timeout returns the timeout option, or the default.
func (q Question) timeout(standard time.Duration) (time.Duration, error) {
	text := q.Options["timeout"]
	if text == "" || text == "0" {
		return standard, nil
	}
	ms, err := strconv.ParseUint(text, 10, 31)
	if err != nil {
		return 0, fmt.Errorf("the timeout %q is no number of milliseconds", text)
	}
	return time.Duration(ms) * time.Millisecond, nil
}

// patience is timeout where that has been checked.
func (q Question) patience(standard time.Duration) time.Duration {
	d, err := q.timeout(standard)
	if err != nil {
		return standard
	}
	return d
}

// all returns the same fact for every attribute of a question.
func all(f Fact, q Question) Answer {
	a := Answer{}
	for _, name := range q.Attributes {
		a[name] = f
	}
	return a
}

// only returns the requested facts.
func only(a Answer, q Question) Answer {
	asked := Answer{}
	for _, name := range q.Attributes {
		f, ok := a[name]
		if !ok {
			f = unknown(fmt.Sprintf("%s has no attribute %q", q.Kind, name))
		}
		asked[name] = f
	}
	return asked
}

// reply is the output of a probe.
type reply struct {
	status  int
	late    bool   // it timed out
	lost    string // why there is no reply, or ""
	out     []byte // at most maxText bytes, plus one if there was more
	err     []byte
	missing bool // the machine lacks a program for it
}

// failed returns why a probe has no result, or "".
func (r reply) failed() string {
	switch {
	case r.lost != "":
		return r.lost
	case r.late:
		return "it took too long"
	case r.status == 0 && !r.missing:
		return ""
	case r.status == 137:
		return "it took too long, or was killed"
	}
	if text := firstLine(r.err); text != "" {
		return text
	}
	return fmt.Sprintf("exit status %d", r.status)
}

// firstLine returns the first line of an error, as a message shows it.
func firstLine(text []byte) string {
	line, _, _ := strings.Cut(strings.TrimSpace(string(text)), "\n")
	return prose.Short(line, 300)
}

// text returns an output as a fact.
func (r reply) text(out []byte) Fact {
	if len(out) > maxText {
		return Fact{Text(out[:maxText]), fmt.Sprintf("it is longer than %d MB", maxText>>20)}
	}
	return known(Text(out))
}

// plan holds the queries of one script. Each query occurs once.
type plan struct {
	ids      map[string]int // by line
	probes   []string       // lines of sh without the id, which comes after the first word; by id
	commands []int          // ids of users' commands
	allowed  time.Duration  // for commands
}

func newPlan() *plan { return &plan{ids: map[string]int{}} }

// probe adds a call of a function in probes.sh, and returns the id of its reply. The
// words may contain anything but NUL.
func (p *plan) probe(words ...string) int { return p.add("fact " + shellquote.Join(words...)) }

// short is a probe with little output and no NUL, which is cheaper for the machine.
func (p *plan) short(words ...string) int { return p.add("say " + shellquote.Join(words...)) }

// batches are the functions of probes.sh that answer many questions at once.
var batches = []string{"files", "parameters", "enabled", "running"}

// one adds a query for one item of a batch.
func (p *plan) one(batch, word string) int { return p.add(batch + " " + shellquote.Join(word)) }

func (p *plan) add(line string) int {
	id, ok := p.ids[line]
	if !ok {
		id = len(p.probes)
		p.ids[line], p.probes = id, append(p.probes, line)
	}
	return id
}

// command adds a user's command. Unlike other queries, it runs as often as it is added.
func (p *plan) command(line string, timeout time.Duration) int {
	seconds := int64(max(1, (timeout+time.Second-1)/time.Second))
	id := len(p.probes)
	p.probes = append(p.probes, runs+" "+shellquote.Join(strconv.FormatInt(seconds, 10), line))
	p.commands = append(p.commands, id)
	p.allowed += time.Duration(seconds) * time.Second
	return id
}

// runs is the beginning of the lines for users' commands.
const runs = "run"

//go:embed probes.sh
var probes string

// script returns the script for the machine. Its last line proves that the script is
// complete.
func (p *plan) script(nonce string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "LIMIT=%d\nNONCE=%s\n%s\nfacts() {\n", maxText+1, nonce, probes)
	var job, ids strings.Builder
	batch := ""
	for _, id := range p.order() {
		if id == len(p.probes) {
			break
		}
		verb, words, _ := strings.Cut(p.probes[id], " ")
		switch verb {
		case runs:
			fmt.Fprintf(&job, "%d) run %d %s ;;\n", id, id, words)
			fmt.Fprintf(&ids, " %d", id)
		case batch:
			fmt.Fprintf(&b, " %d %s", id, words)
			continue
		default:
			fmt.Fprintf(&b, "\n%s %d %s", verb, id, words)
		}
		if batch = ""; slices.Contains(batches, verb) {
			batch = verb
		}
	}
	b.WriteString("\n")
	if len(p.commands) > 0 {
		fmt.Fprintf(&b, "commands %d%s\n", min(workers, len(p.commands)), ids.String())
	}
	fmt.Fprintf(&b, "fact %d room\n}\njob() {\ncase $1 in\n%s*) ;;\nesac\n}\nbegin\n# end %s", len(p.probes), job.String(), nonce)
	return b.String()
}

// input returns the input of the shell: the script in base64, so that neither a terminal
// nor a connection that ends early changes what is run.
func input(script, nonce string) string {
	var b strings.Builder
	b.WriteString("s=$(base64 -d <<'END'\n")
	for text := base64.StdEncoding.EncodeToString([]byte(script)); text != ""; {
		n := min(76, len(text))
		b.WriteString(text[:n] + "\n")
		text = text[n:]
	}
	b.WriteString("END\n)\ncase $s in\n*'# end " + nonce + "') eval \"$s\" ;;\n*) echo 'what is to be run has not arrived; the machine needs base64' >&2; exit 1 ;;\nesac\nexit 0\n")
	return b.String()
}

// shells are the command lines that start the shell.
func (as As) shell() string {
	if as == Root {
		return `sh -c 'if [ "$(id -u)" = 0 ]; then exec sh -s; fi; exec sudo -n sh -s'`
	}
	return "sh -s"
}

// run runs the script, and returns the replies by id.
func (p *plan) run(ctx context.Context, c communicator.Communicator, as As) ([]reply, error) {
	if len(p.probes) == 0 {
		return nil, nil
	}
	limit := patience + p.allowed
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("the machine has not answered within %s", limit))
	defer cancel()
	nonce := rand.Text()
	out, errOut := &communicator.Head{Max: maxTotal}, &communicator.Head{Max: 4 << 10}
	st, err := c.Run(ctx, communicator.Command{
		Line: as.shell(), Stdin: strings.NewReader(input(p.script(nonce), nonce)), Stdout: out, Stderr: errOut,
	})
	if err != nil {
		return nil, err
	}
	before, answer, ok := strings.Cut(out.String(), "bake facts "+nonce)
	if !ok {
		why := firstLine([]byte(errOut.String()))
		if why == "" { // a terminal shows errors as output
			why = firstLine([]byte(before))
		}
		if why == "" {
			why = fmt.Sprintf("exit status %d", st.Code)
		}
		if as == Root {
			return nil, fmt.Errorf("cannot look at the machine as root: %s; log in as root or as a user whom sudo asks for no password, or look at it as the login user", why)
		}
		return nil, fmt.Errorf("cannot look at the machine: %s; it needs a POSIX shell and base64", why)
	}
	answer, _, ended := strings.Cut(answer, "bake end "+nonce)
	if !ended && !out.Cut() {
		return nil, fmt.Errorf("the machine's answer ends early: exit status %d: %s", st.Code, firstLine([]byte(errOut.String())))
	}
	return p.parse(base64.NewDecoder(base64.StdEncoding, strings.NewReader(answer)), out.Cut())
}

// parse reads the replies. cut means that the answer was cut off: missing replies are then
// marked as lost.
func (p *plan) parse(r io.Reader, cut bool) ([]reply, error) {
	r = bufio.NewReader(r)
	f := &frames{r: r}
	replies := make([]reply, len(p.probes)+1)
	order := p.order()
	for n, id := range order {
		got, err := f.next(id)
		if err != nil && cut && errors.Is(err, io.ErrUnexpectedEOF) {
			for _, id := range order[n:] {
				replies[id] = reply{lost: fmt.Sprintf("the machine's output is longer than %d MB", maxTotal>>20)}
			}
			return replies, nil
		}
		if err != nil {
			return nil, fmt.Errorf("the machine's answer cannot be read: %w", err)
		}
		replies[id] = got
	}
	if rest, err := io.ReadAll(io.LimitReader(r, 1)); err != nil || len(rest) > 0 {
		return nil, errors.New("the machine's answer cannot be read: it is longer than it says")
	}
	if room := replies[len(p.probes)]; room.status != 0 || len(room.out) > 0 {
		return nil, errors.New("the machine has no room for the facts: its /dev/shm or /tmp is full")
	}
	return replies, nil
}

// order returns the order of the replies: first the queries that run alone, then batches,
// then users' commands, and last the status.
func (p *plan) order() []int {
	rank := func(id int) int {
		verb, _, _ := strings.Cut(p.probes[id], " ")
		if verb == runs {
			return len(batches)
		}
		return slices.Index(batches, verb)
	}
	var ids []int
	for id := range p.probes {
		ids = append(ids, id)
	}
	sort.SliceStable(ids, func(i, j int) bool { return rank(ids[i]) < rank(ids[j]) })
	return append(ids, len(p.probes))
}

// frames reads the output of the function reply in probes.sh.
type frames struct{ r io.Reader }

// maxHeader is the maximum length of the first line of a reply.
const maxHeader = 80

func (f *frames) next(id int) (reply, error) {
	var line []byte
	for b := make([]byte, 1); ; {
		if _, err := io.ReadFull(f.r, b); err != nil {
			return reply{}, unexpected(err)
		}
		if b[0] == '\n' {
			break
		}
		if line = append(line, b[0]); len(line) > maxHeader {
			return reply{}, fmt.Errorf("%.40q is not a reply", line)
		}
	}
	words := strings.Split(string(line), " ")
	if len(words) != 4 || words[0] != strconv.Itoa(id) {
		return reply{}, fmt.Errorf("%.40q is not the reply %d", line, id)
	}
	var got reply
	switch words[1] {
	case "late":
		got.late = true
	case "missing":
		got.missing = true
	default:
		n, err := strconv.ParseUint(words[1], 10, 8)
		if err != nil {
			return reply{}, fmt.Errorf("%.40q has no exit status", line)
		}
		got.status = int(n)
	}
	for i, to := range []*[]byte{&got.out, &got.err} {
		n, err := strconv.ParseUint(words[2+i], 10, 63)
		if err != nil {
			return reply{}, fmt.Errorf("%.40q has no length", line)
		}
		if *to, err = f.read(int(min(n, maxText+1))); err != nil {
			return reply{}, err
		}
	}
	end, err := f.read(1)
	if err == nil && end[0] != '\n' {
		err = fmt.Errorf("the reply %d does not end where it should", id)
	}
	return got, err
}

// read reads n bytes. It allocates memory only as they arrive.
func (f *frames) read(n int) ([]byte, error) {
	var b bytes.Buffer
	_, err := io.CopyN(&b, f.r, int64(n))
	return b.Bytes(), unexpected(err)
}

func unexpected(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}
