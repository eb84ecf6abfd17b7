package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

// TestDeploy: the files in deploy can be parsed by the systems that they are for, call
// the worker with existing flags, and confine it as far as each system can.
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
	if strings.Contains(unit, "BAKE_FLEET_KEY=") {
		t.Error("the unit has the key in the environment")
	}
	check("unit", strings.Fields(command[1]))
	for _, line := range []string{"DynamicUser=yes", "NoNewPrivileges=yes", "CapabilityBoundingSet=", "ProtectSystem=strict", "TimeoutStopSec=35min",
		"LoadCredential=fleet-key:/etc/bake/credentials/fleet-key", "Environment=BAKE_FLEET_KEY_FILE=%d/fleet-key"} {
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
						Grace                        int   `yaml:"terminationGracePeriodSeconds"`
						Volumes                      []struct {
							Name   string
							Secret struct {
								Name string `yaml:"secretName"`
								Mode int    `yaml:"defaultMode"`
							}
						}
						Containers []struct {
							Args   []string
							Env    []struct{ Name, Value string }
							From   []any `yaml:"envFrom"`
							Mounts []struct {
								Name     string
								Path     string `yaml:"mountPath"`
								ReadOnly bool   `yaml:"readOnly"`
							} `yaml:"volumeMounts"`
							SecurityContext map[string]any `yaml:"securityContext"`
							Startup         probe          `yaml:"startupProbe"`
							Liveness        probe          `yaml:"livenessProbe"`
							Readiness       probe          `yaml:"readinessProbe"`
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
			if c.Startup.HTTPGet.Path != "/live" || c.Liveness.HTTPGet.Path != "/live" || c.Readiness.HTTPGet.Path != "/ready" || c.Liveness.HTTPGet.Port != "metrics" || c.Readiness.HTTPGet.Port != "metrics" {
				t.Errorf("the probes: %+v", c)
			}
			key := map[string]string{} // where each system puts it
			for _, v := range c.Env {
				if strings.HasPrefix(v.Name, "BAKE_FLEET_KEY") {
					key[v.Name] = v.Value
				}
			}
			for _, m := range c.Mounts {
				for _, v := range pod.Volumes {
					if v.Name == m.Name && v.Secret.Name == "bake-fleet" && v.Secret.Mode == 0o440 && m.ReadOnly {
						key["mount"] = m.Path + "/fleet-key"
					}
				}
			}
			if len(c.From) > 0 || len(key) != 2 || key["mount"] == "" || key["mount"] != key["BAKE_FLEET_KEY_FILE"] {
				t.Errorf("the pod has its key as in %v, and variables of %v", key, c.From)
			}
			if pod.Grace < 35*60 {
				t.Errorf("the pod has %d s to end", pod.Grace)
			}
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
			StopTimeout            int
			HealthCheck            struct{ Command []string }
			MountPoints            []struct {
				SourceVolume, ContainerPath string
				ReadOnly                    bool
			}
		}
		Volumes []struct {
			Name string
			EFS  struct {
				FileSystemID      string
				TransitEncryption string
			} `json:"efsVolumeConfiguration"`
		}
	}
	strictly(t, read("ecs-task.json"), &task)
	if len(task.ContainerDefinitions) != 1 || !task.ContainerDefinitions[0].ReadonlyRootFilesystem || task.ContainerDefinitions[0].User != "1000" || task.ContainerDefinitions[0].Secrets[0].Name != "BAKE_FLEET_KEY" {
		t.Fatalf("%+v", task)
	}
	worker := task.ContainerDefinitions[0]
	check("ECS", worker.Command)
	if worker.StopTimeout != 120 { // the maximum of Fargate
		t.Errorf("the task has %d s to end", worker.StopTimeout)
	}
	if fleets := worker.MountPoints[0]; fleets.ContainerPath != "/etc/bake/fleets" || !fleets.ReadOnly || task.Volumes[0].Name != fleets.SourceVolume || task.Volumes[0].EFS.FileSystemID == "" || task.Volumes[0].EFS.TransitEncryption != "ENABLED" {
		t.Errorf("the task has no fleets: %+v, %+v", worker.MountPoints, task.Volumes)
	}
	tryProbe(t, worker.HealthCheck.Command)

	var policy struct{ Statement []struct{ Action string } }
	strictly(t, read("worker-policy.json"), &policy)
	if len(policy.Statement) != 1 || policy.Statement[0].Action != "sts:AssumeRole" {
		t.Errorf("a worker may do more than take on roles: %+v", policy)
	}
}

// probe is a probe of Kubernetes.
type probe struct {
	HTTPGet struct{ Path, Port string } `yaml:"httpGet"`
}

// tryProbe runs a container's probe of port 9464 against a healthy and an unhealthy server.
func tryProbe(t *testing.T, command []string) {
	t.Helper()
	if runtime.GOOS != "linux" {
		return
	}
	status := http.StatusOK
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/live" {
			w.WriteHeader(http.StatusNotFound)
			return
		}
		w.WriteHeader(status)
	}))
	defer s.Close()
	_, port, _ := strings.Cut(s.Listener.Addr().String(), ":")
	run := func() error {
		args := slices.Clone(command[1:])
		args[2] = strings.ReplaceAll(args[2], "/9464 ", "/"+port+" ")
		return exec.CommandContext(t.Context(), args[0], args[1:]...).Run()
	}
	if err := run(); err != nil {
		t.Errorf("the probe of a worker that is well: %v", err)
	}
	status = http.StatusInternalServerError
	if run() == nil {
		t.Error("the probe of a worker that is not well succeeds")
	}
	s.Close()
	if run() == nil {
		t.Error("the probe of a worker that is gone succeeds")
	}
}

// TestUnitVerifies: systemd, if it is installed, accepts the unit.
func TestUnitVerifies(t *testing.T) {
	if _, err := exec.LookPath("systemd-analyze"); err != nil {
		t.Skip("there is no systemd-analyze")
	}
	text, err := os.ReadFile(filepath.Join("..", "..", "deploy", "bake-worker.service"))
	if err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable() // the worker need not be installed
	if err != nil {
		t.Fatal(err)
	}
	unit := filepath.Join(t.TempDir(), "bake-worker.service")
	if err := os.WriteFile(unit, bytes.ReplaceAll(text, []byte("/usr/bin/bake-worker"), []byte(self)), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(t.Context(), "systemd-analyze", "verify", "--man=no", unit).CombinedOutput()
	if err != nil || bytes.Contains(out, []byte("bake-worker.service:")) {
		t.Errorf("%v\n%s", err, out)
	}
}

// TestTaskValidates: the AWS CLI, if it is installed, accepts the task for ECS, up to the request.
func TestTaskValidates(t *testing.T) {
	aws, err := exec.LookPath("aws")
	if err != nil {
		t.Skip("there is no AWS CLI")
	}
	task, err := filepath.Abs(filepath.Join("..", "..", "deploy", "ecs-task.json"))
	if err != nil {
		t.Fatal(err)
	}
	c := exec.CommandContext(t.Context(), aws, "ecs", "register-task-definition", "--cli-input-json", "file://"+task, "--endpoint-url", "http://127.0.0.1:1")
	c.Env = append(os.Environ(), "AWS_ACCESS_KEY_ID=x", "AWS_SECRET_ACCESS_KEY=x", "AWS_DEFAULT_REGION=eu-west-1", "AWS_MAX_ATTEMPTS=1", "AWS_CONFIG_FILE="+os.DevNull)
	if out, err := c.CombinedOutput(); err == nil || !bytes.Contains(out, []byte("Could not connect")) {
		t.Errorf("%v\n%s", err, out)
	}
}

// TestManifestDecodes: kubectl, if it is installed, keeps all fields of the Deployment; it drops
// fields that Kubernetes does not have.
func TestManifestDecodes(t *testing.T) {
	kubectl, err := exec.LookPath("kubectl")
	if err != nil {
		t.Skip("there is no kubectl")
	}
	text, err := os.ReadFile(filepath.Join("..", "..", "deploy", "kubernetes.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	for _, typo := range []string{"", "readinesProbe"} {
		for one := range strings.SplitSeq(string(text), "\n---\n") {
			var want, got any
			if typo != "" {
				one = strings.ReplaceAll(one, "readinessProbe", typo)
			}
			if err := yaml.Unmarshal([]byte(one), &want); err != nil {
				t.Fatal(err)
			}
			if want.(map[string]any)["kind"] != "Deployment" {
				continue
			}
			c := exec.CommandContext(t.Context(), kubectl, "set", "serviceaccount", "--local", "-f", "-", "bake-worker", "-o", "yaml")
			c.Stdin = strings.NewReader(one)
			out, err := c.CombinedOutput()
			if err == nil {
				err = yaml.Unmarshal(out, &got)
			}
			if err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			if at := lost(want, got, ""); at != "" != (typo != "") || !strings.HasSuffix(at, typo) {
				t.Errorf("with %q, what is lost: %q", typo, at)
			}
		}
	}
}

// lost returns the first place at which got lacks something.
func lost(want, got any, at string) string {
	switch want := want.(type) {
	case map[string]any:
		for _, k := range slices.Sorted(maps.Keys(want)) {
			have, _ := got.(map[string]any)
			if _, ok := have[k]; !ok {
				return at + "." + k
			}
			if l := lost(want[k], have[k], at+"."+k); l != "" {
				return l
			}
		}
	case []any:
		have, _ := got.([]any)
		if len(have) != len(want) {
			return at
		}
		for i := range want {
			if l := lost(want[i], have[i], at); l != "" {
				return l
			}
		}
	}
	return ""
}

// strictly decodes JSON that must not be followed by anything.
func strictly(t *testing.T, text string, to any) {
	t.Helper()
	if err := json.NewDecoder(bytes.NewReader([]byte(text))).Decode(to); err != nil || !json.Valid([]byte(text)) {
		t.Fatal(err)
	}
}
