package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

// TestDeploy: what deploy has for operators can be read by what it is for, and calls the
// worker with flags that there are, confined as far as each system can.
func TestDeploy(t *testing.T) {
	read := func(name string) string {
		text, err := os.ReadFile(filepath.Join("..", "..", "deploy", name))
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	check := func(name string, args []string) {
		p := &program{stdin: strings.NewReader(""), stdout: newOutput(io.Discard), stderr: newOutput(io.Discard)}
		cmd, rest, err := p.root(nil).Find(singleDash(args))
		if err == nil {
			err = cmd.ParseFlags(rest)
		}
		if err != nil || cmd.Name() != "worker" || !slices.Contains(args, "/etc/bake/fleets") {
			t.Errorf("%s: %q: %v", name, args, err)
		}
	}
	unit := read("bake-worker.service")
	command := regexp.MustCompile(`(?m)^ExecStart=\S+/bake-worker (.*)$`).FindStringSubmatch(unit)
	if command == nil {
		t.Fatal("the unit starts no worker")
	}
	check("unit", strings.Fields(command[1]))
	for _, line := range []string{"DynamicUser=yes", "NoNewPrivileges=yes", "CapabilityBoundingSet=", "ProtectSystem=strict", "TimeoutStopSec=35min"} {
		if !strings.Contains(unit, "\n"+line+"\n") {
			t.Errorf("the unit lacks %s", line)
		}
	}

	words := regexp.MustCompile(`(?m)^CMD (\[.*\])$`).FindStringSubmatch(read("Containerfile"))
	var args []string
	if words == nil || json.Unmarshal([]byte(words[1]), &args) != nil {
		t.Fatal("the container runs no worker")
	}
	check("container", args)

	workers := 0
	for dec := yaml.NewDecoder(strings.NewReader(read("kubernetes.yaml"))); ; {
		var object struct {
			Kind string
			Spec struct {
				Template struct {
					Spec struct {
						AutomountServiceAccountToken *bool `yaml:"automountServiceAccountToken"`
						Containers                   []struct {
							Args            []string
							SecurityContext map[string]any `yaml:"securityContext"`
						}
					}
				}
			}
		}
		if err := dec.Decode(&object); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		pod := object.Spec.Template.Spec
		for _, c := range pod.Containers {
			workers++
			check("kubernetes", c.Args)
			if c.SecurityContext["readOnlyRootFilesystem"] != true || c.SecurityContext["allowPrivilegeEscalation"] != false || pod.AutomountServiceAccountToken == nil || *pod.AutomountServiceAccountToken {
				t.Errorf("the pod is not confined: %v", c.SecurityContext)
			}
		}
	}
	if workers != 1 {
		t.Errorf("%d workers on Kubernetes", workers)
	}

	var task struct {
		ContainerDefinitions []struct {
			Command                []string
			ReadonlyRootFilesystem bool
			User                   string
			Secrets                []struct{ Name string }
		}
	}
	strictly(t, read("ecs-task.json"), &task)
	if len(task.ContainerDefinitions) != 1 || !task.ContainerDefinitions[0].ReadonlyRootFilesystem || task.ContainerDefinitions[0].User != "1000" || task.ContainerDefinitions[0].Secrets[0].Name != "BAKE_FLEET_KEY" {
		t.Fatalf("%+v", task)
	}
	check("ECS", task.ContainerDefinitions[0].Command)

	var policy struct{ Statement []struct{ Action string } }
	strictly(t, read("worker-policy.json"), &policy)
	if len(policy.Statement) != 1 || policy.Statement[0].Action != "sts:AssumeRole" {
		t.Errorf("a worker may do more than take on roles: %+v", policy)
	}
}

// strictly reads JSON that nothing follows.
func strictly(t *testing.T, text string, to any) {
	t.Helper()
	if err := json.NewDecoder(bytes.NewReader([]byte(text))).Decode(to); err != nil || !json.Valid([]byte(text)) {
		t.Fatal(err)
	}
}
