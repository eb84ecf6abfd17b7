package winrmtest

import (
	"context"
	"fmt"
	"strings"

	"bake/internal/powershelltest"
)

// record is an object that accepts any property.
type record map[string]any

func (r record) Get(name string) (any, error) {
	if r[name] == nil {
		r[name] = record{}
	}
	return r[name], nil
}
func (r record) Set(name string, value any) error { r[name] = value; return nil }
func (r record) Call(name string, _ []any) (any, error) {
	if name == "create" {
		r["0"] = record{}
		return r["0"], nil
	}
	return nil, fmt.Errorf("there is no method %s", name)
}

// service is the task scheduler and its folder of tasks.
type service struct{ w *Windows }

func (service) Get(name string) (any, error) { return nil, fmt.Errorf("there is no property %s", name) }
func (service) Set(name string, _ any) error { return fmt.Errorf("there is no property %s", name) }

func (s service) Call(name string, args []any) (any, error) {
	text := func(i int) string {
		if i < len(args) && args[i] != nil {
			return fmt.Sprint(args[i])
		}
		return ""
	}
	s.w.mu.Lock()
	defer s.w.mu.Unlock()
	switch name {
	case "connect":
		return nil, nil
	case "getfolder":
		if text(0) != `\` {
			return nil, fmt.Errorf("The system cannot find the file specified: %s", text(0)) //nolint:staticcheck // Windows says so
		}
		return s, nil
	case "newtask":
		return record{}, nil
	case "registertaskdefinition":
		return s.register(text(0), args, text(3), text(4), text(5))
	case "gettask", "deletetask":
		t := s.w.tasks[text(0)]
		if t == nil {
			return nil, fmt.Errorf("The system cannot find the file specified: %s", text(0)) //nolint:staticcheck // Windows says so
		}
		if name == "deletetask" {
			delete(s.w.tasks, text(0))
			return nil, nil
		}
		return t, nil
	}
	return nil, fmt.Errorf("the task scheduler has no method %s", name)
}

func (s service) register(name string, args []any, user, password, logon string) (any, error) {
	definition, ok := args[1].(record)
	if !ok || len(args) != 7 {
		return nil, fmt.Errorf("a definition of a task is needed")
	}
	want, known := s.w.Users[user]
	if !known || want != password || (want == "") != (logon == "5") || (want != "") != (logon == "1") {
		return nil, fmt.Errorf("The user name or password is incorrect. (Exception from HRESULT: 0x8007052E)") //nolint:staticcheck // Windows says so
	}
	action, err := powershelltest.Object(definition).Get("actions")
	if err != nil {
		return nil, err
	}
	first, ok := action.(record)["0"].(record)
	if !ok {
		return nil, fmt.Errorf("a task needs an action")
	}
	level := fmt.Sprint(definition["principal"].(record)["runlevel"])
	t := &task{w: s.w, user: user, level: level, path: fmt.Sprint(first["path"]), arguments: fmt.Sprint(first["arguments"]), result: notRun}
	s.w.tasks[name] = t
	return t, nil
}

// The results of tasks that have none.
const (
	running = 267009
	notRun  = 267011
)

// task is a task of the scheduler.
type task struct {
	w               *Windows
	user, level     string
	path, arguments string
	stop            context.CancelFunc
	result          int
}

func (t *task) Set(name string, _ any) error { return fmt.Errorf("there is no property %s", name) }

func (t *task) Get(name string) (any, error) {
	t.w.mu.Lock()
	defer t.w.mu.Unlock()
	switch {
	case name == "lasttaskresult":
		return t.result, nil
	case name == "state" && t.result == running:
		return 4, nil
	case name == "state":
		return 3, nil
	}
	return nil, fmt.Errorf("there is no property %s", name)
}

func (t *task) Call(name string, _ []any) (any, error) {
	t.w.mu.Lock()
	defer t.w.mu.Unlock()
	switch name {
	case "run":
		ctx, cancel := context.WithCancel(context.Background())
		t.stop, t.result = cancel, running
		go func() {
			env := t.w.environment()
			env["USERNAME"], env["RUNLEVEL"] = t.user, t.level
			c := &cmd{t.w, ctx, env, strings.NewReader(""), nothing{}, nothing{}}
			code := 2 // there is no such file
			if t.path == "cmd" {
				code = c.inner(t.arguments)
			}
			t.w.mu.Lock()
			defer t.w.mu.Unlock()
			t.result = code
		}()
		return nil, nil
	case "stop":
		if t.stop != nil {
			t.stop()
		}
		return nil, nil
	}
	return nil, fmt.Errorf("a task has no method %s", name)
}

// nothing is the output of a task.
type nothing struct{}

func (nothing) Write(b []byte) (int, error) { return len(b), nil }
