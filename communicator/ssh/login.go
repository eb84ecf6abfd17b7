package ssh

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"
	"golang.org/x/term"

	"bake/internal/terminal"
)

// login holds a user's ways to log in to one host.
type login struct {
	keys     []key
	agent    *localAgent // the source of further keys, or nil
	password string
	ask      func(ctx context.Context, instruction string, questions []string, echo []bool) ([]string, error) // or nil

	offers []string // in words, for the error if all are refused
	hope   bool     // one of them may be accepted later
	said   []string // banners of the host
	err    error    // why the agent or the terminal could not be used
}

type key struct {
	what   string
	signer ssh.Signer
}

func (l *login) addFile(keyFile, certFile string) error {
	if keyFile == "" {
		return nil
	}
	signer, err := loadKey(keyFile, certFile)
	if err != nil {
		return err
	}
	l.keys = append(l.keys, key{"the key in " + keyFile, signer})
	return nil
}

// anew returns a login with the same credentials and no results.
func (l *login) anew() *login {
	return &login{keys: l.keys, agent: l.agent, password: l.password, ask: l.ask}
}

// methods returns the ways to log in, in the order agent, keys, password, keyboard-interactive.
// They are valid for one handshake, which ends with ctx.
func (l *login) methods(ctx context.Context, user string) (methods []ssh.AuthMethod) {
	now := time.Now()
	offer := func(what string, key ssh.PublicKey) {
		text := fmt.Sprintf("%s (%s)", what, describe(key))
		if doubt := certificateDoubt(key, user, now); doubt != "" {
			text += ", a certificate that " + doubt
		}
		l.offers = append(l.offers, text)
		l.hope = l.hope || !expired(key, now)
	}
	var signers []ssh.Signer
	for _, k := range l.keys {
		signers = append(signers, k.signer)
		offer(k.what, k.signer.PublicKey())
	}
	if l.agent != nil {
		methods = append(methods, ssh.PublicKeysCallback(func() ([]ssh.Signer, error) {
			more, err := l.agent.signers(ctx)
			if err != nil {
				l.err = &fatalError{err}
				return nil, l.err
			}
			if len(more) <= 3 {
				for _, k := range more {
					offer("a key of the SSH agent", k.PublicKey())
				}
			} else {
				l.offers, l.hope = append(l.offers, fmt.Sprintf("%d keys from the SSH agent", len(more))), true
			}
			return append(more, signers...), nil
		}))
	} else if len(signers) > 0 {
		methods = append(methods, ssh.PublicKeys(signers...))
	}
	if l.password != "" {
		l.offers, l.hope = append(l.offers, "the password"), true
		methods = append(methods, ssh.Password(l.password))
	}
	l.hope = l.hope || l.ask != nil
	if l.password != "" || l.ask != nil {
		methods = append(methods, ssh.KeyboardInteractive(func(_, instruction string, questions []string, echo []bool) ([]string, error) {
			return l.answer(ctx, instruction, questions, echo)
		}))
	}
	return methods
}

// banner records a message that the host sends before it decides on a login.
func (l *login) banner(text string) error {
	if text = printable(text); text != "" && len(l.said) < 5 {
		l.said = append(l.said, text)
	}
	return nil
}

func (l *login) answer(ctx context.Context, instruction string, questions []string, echo []bool) ([]string, error) {
	if l.ask != nil && len(questions) > 0 {
		answers, err := l.ask(ctx, instruction, questions, echo)
		if err != nil {
			l.err = &fatalError{err}
		}
		return answers, err
	}
	answers := make([]string, len(questions))
	for i := range answers {
		answers[i] = l.password
	}
	return answers, nil
}

// askOnTerminal asks the user the host's questions. If ctx ends first, the terminal is restored.
func askOnTerminal(ctx context.Context, instruction string, questions []string, echo []bool) ([]string, error) {
	tty, err := terminal.Open()
	if err != nil {
		return nil, fmt.Errorf("ssh_bastion_interactive needs a terminal to ask on: %w", err)
	}
	before, err := term.GetState(int(tty.In.Fd()))
	if err != nil {
		_ = tty.Close()
		return nil, fmt.Errorf("ssh_bastion_interactive needs a terminal to ask on: %w", err)
	}
	type result struct {
		answers []string
		err     error
	}
	done := make(chan result, 1)
	go func() {
		defer func() { _ = tty.Close() }()
		answers, err := questionsOn(tty, instruction, questions, echo)
		done <- result{answers, err}
	}()
	select {
	case r := <-done:
		return r.answers, r.err
	case <-ctx.Done():
		_ = term.Restore(int(tty.In.Fd()), before) // best effort on the way out
		return nil, fmt.Errorf("no answer on the terminal (ssh_bastion_interactive): %w", context.Cause(ctx))
	}
}

func questionsOn(tty *terminal.Terminal, instruction string, questions []string, echo []bool) (answers []string, err error) {
	if instruction != "" {
		fmt.Fprintln(tty, instruction)
	}
	for i, q := range questions {
		fmt.Fprint(tty, q)
		var line string
		if echo[i] {
			line, err = readLine(tty)
		} else {
			var b []byte
			b, err = term.ReadPassword(int(tty.In.Fd()))
			fmt.Fprintln(tty)
			line = string(b)
		}
		if err != nil {
			return nil, err
		}
		answers = append(answers, line)
	}
	return answers, nil
}

// readLine reads one line and nothing after it.
func readLine(r io.Reader) (string, error) {
	var line strings.Builder
	for b := make([]byte, 1); ; {
		n, err := r.Read(b)
		if n > 0 && b[0] == '\n' || errors.Is(err, io.EOF) {
			return strings.TrimSuffix(line.String(), "\r"), nil
		}
		if err != nil {
			return "", err
		}
		line.Write(b[:n])
	}
}

// localAgent is the SSH agent of the user who runs bake.
type localAgent struct {
	socket  string // empty if none runs
	forward bool
}

// agentPatience limits the listing of the agent's keys. The agent may have to ask its user.
const agentPatience = 30 * time.Second

// signers returns the agent's keys. They work until ctx ends. Each handshake has its own connection
// to the agent.
func (a *localAgent) signers(ctx context.Context) ([]ssh.Signer, error) {
	conn, err := dialAgent(ctx, a.socket)
	if err != nil {
		return nil, fmt.Errorf("the SSH agent cannot be reached: %w", explained(ctx, err))
	}
	context.AfterFunc(ctx, func() { conn.Close() })
	late := time.AfterFunc(agentPatience, func() { conn.Close() })
	signers, err := agent.NewClient(conn).Signers()
	if !late.Stop() {
		return nil, fmt.Errorf("the SSH agent at %s (SSH_AUTH_SOCK) did not answer within %s", a.socket, agentPatience)
	}
	if err != nil {
		return nil, fmt.Errorf("the SSH agent did not list its keys: %w", explained(ctx, err))
	}
	if len(signers) == 0 {
		return nil, errors.New("the SSH agent has no keys; add one with ssh-add")
	}
	return signers, nil
}

// forwardOver lets the machine use the agent, in sessions that request it.
func (a *localAgent) forwardOver(client *ssh.Client) error {
	return forwardAgent(client, a.socket)
}
