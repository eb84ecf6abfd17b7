package ssm

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"sort"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	ec2types "github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"bake/cloud/api/ssm"
	"bake/cloud/lazyregexp"
	"bake/cloud/wire"
)

// command is a command that was sent, with an invocation for each instance.
type command struct {
	Account, Region string
	Sent            ssm.Command // without the fields that are derived from the invocations
	Cancelled       bool        // it, or an invocation of it, was cancelled by a client
	Invocations     []invocation
}

// invocation is the execution of a command on one instance.
type invocation struct {
	InstanceID     string
	InstanceName   string // the instance's tag Name
	Status         ssm.CommandInvocationStatus
	Details        string
	Code           int32 // -1 until there is one
	Started, Ended time.Time
	Stdout, Stderr string // truncated
	Stored         bool   // the output is in the bucket
}

func (v *invocation) over() bool {
	switch v.Status {
	case ssm.CommandInvocationStatusPending, ssm.CommandInvocationStatusInProgress, ssm.CommandInvocationStatusCancelling:
		return false
	}
	return true
}

// isError reports whether the command failed on the instance, rather than on the way to
// it. MaxErrors limits such failures.
func (v *invocation) isError() bool {
	return v.Status == ssm.CommandInvocationStatusFailed && v.Details != undeliverable || v.Details == executionTimedOut
}

// finish ends an invocation that has no exit status.
func (v *invocation) finish(status ssm.CommandInvocationStatus, details string, now time.Time) {
	v.Status, v.Details, v.Ended = status, details, now
}

const (
	shellDocument = "AWS-RunShellScript" // the only supported document
	shellPlugin   = "aws:runShellScript"

	maxScript = 64 << 10 // bytes; the limit of documents

	commandAge = 30 * 24 * time.Hour // after which a command is deleted, as by Systems Manager
)

// plan says how a command runs.
type plan struct {
	script      string
	dir         string
	limit       time.Duration // timeout of each invocation
	concurrency int
	maxErrors   int
	expires     time.Time // when instances that are still waiting are given up
}

// SendCommand runs a script on instances.
func (s *Service) SendCommand(ctx context.Context, in *ssm.SendCommandInput) (*ssm.SendCommandOutput, error) {
	c := wire.CallerFrom(ctx)
	if err := s.checkCommand(c, in); err != nil {
		return nil, err
	}
	parameters, err := s.resolved(ctx, in.Parameters)
	if err != nil {
		return nil, err
	}
	p, err := newPlan(parameters)
	if err != nil {
		return nil, err
	}
	targets, err := s.targets(ctx, in)
	if err != nil {
		return nil, err
	}
	now := s.opts.Now().UTC().Truncate(time.Millisecond)
	row := &command{Account: c.Account, Region: c.Region, Sent: ssm.Command{
		CommandId: aws.String(wire.NewRequestID()), DocumentName: aws.String(shellDocument), DocumentVersion: aws.String(cmp.Or(aws.ToString(in.DocumentVersion), "$DEFAULT")),
		Comment: in.Comment, Parameters: in.Parameters, RequestedDateTime: &now, InstanceIds: in.InstanceIds, Targets: in.Targets,
		MaxConcurrency: aws.String(cmp.Or(aws.ToString(in.MaxConcurrency), "50")), MaxErrors: aws.String(cmp.Or(aws.ToString(in.MaxErrors), "0")),
		TimeoutSeconds:     aws.Int32(cmp.Or(aws.ToInt32(in.TimeoutSeconds), 3600)),
		OutputS3BucketName: in.OutputS3BucketName, OutputS3KeyPrefix: in.OutputS3KeyPrefix, OutputS3Region: in.OutputS3Region,
	}}
	p.expires = now.Add(time.Duration(*row.Sent.TimeoutSeconds)*time.Second + p.limit)
	row.Sent.ExpiresAfter = &p.expires
	for _, t := range targets {
		row.Invocations = append(row.Invocations, invocation{InstanceID: *t.InstanceId, InstanceName: tagOf(t, "Name"), Status: ssm.CommandInvocationStatusPending, Details: "Pending", Code: -1})
	}
	p.concurrency = max(1, share(*row.Sent.MaxConcurrency, len(targets)))
	p.maxErrors = share(*row.Sent.MaxErrors, len(targets))
	err = s.guarded.Update(func(st *state) error {
		if st.closed {
			return &wire.Error{Code: "InternalServerError", Message: "The embedded cloud is being closed.", Status: http.StatusServiceUnavailable}
		}
		if err := st.forgetCommands(now); err != nil {
			return err
		}
		s.begin(st, c, *row.Sent.CommandId, row.Invocations, p)
		return st.commands.Put(*row.Sent.CommandId, row)
	})
	if err != nil {
		return nil, err
	}
	return &ssm.SendCommandOutput{Command: row.shown()}, nil
}

// checkCommand reports what is invalid or unsupported in a request.
func (s *Service) checkCommand(c wire.Caller, in *ssm.SendCommandInput) error {
	name := *in.DocumentName
	if _, short, ok := strings.Cut(name, ":document/"); ok {
		name = short
	}
	switch {
	case name != shellDocument:
		return wire.Errorf("InvalidDocument", "Document with name %s does not exist. The embedded cloud runs commands with %s.", *in.DocumentName, shellDocument)
	case in.DocumentHash != nil:
		return wire.Errorf("InvalidDocument", "The embedded cloud does not know the hash of %s.", shellDocument)
	case !slices.Contains([]string{"", "1", "$DEFAULT", "$LATEST"}, aws.ToString(in.DocumentVersion)):
		return wire.Errorf("InvalidDocumentVersion", "The document version %s is not valid or does not exist.", *in.DocumentVersion)
	case in.NotificationConfig != nil && (aws.ToString(in.NotificationConfig.NotificationArn) != "" || len(in.NotificationConfig.NotificationEvents) > 0):
		return wire.Errorf("InvalidNotificationConfig", "The embedded cloud has no Simple Notification Service to send notifications with.")
	case aws.ToString(in.ServiceRoleArn) != "":
		return wire.Errorf("InvalidRole", "The role is for notifications, which the embedded cloud does not send.")
	case in.CloudWatchOutputConfig != nil && in.CloudWatchOutputConfig.CloudWatchOutputEnabled:
		return wire.Errorf("ValidationException", "The embedded cloud has no CloudWatch Logs to send output to; use OutputS3BucketName.")
	case in.AlarmConfiguration != nil:
		return wire.Errorf("ValidationException", "The embedded cloud has no CloudWatch alarms.")
	}
	for _, share := range []struct {
		name    string
		value   *string
		pattern *regexp.Regexp
	}{{"maxConcurrency", in.MaxConcurrency, concurrencyShare.Get()}, {"maxErrors", in.MaxErrors, errorShare.Get()}} {
		if share.value != nil && !share.pattern.MatchString(*share.value) {
			return validation("1 validation error detected: Value '%s' at '%s' failed to satisfy constraint: Member must satisfy regular expression pattern: %s", *share.value, share.name, share.pattern)
		}
	}
	if bucket := aws.ToString(in.OutputS3BucketName); bucket != "" {
		c.Region = cmp.Or(aws.ToString(in.OutputS3Region), c.Region)
		if err := s.opts.Objects.Bucket(c, bucket); err != nil {
			return wire.Errorf("InvalidOutputFolder", "The S3 bucket %s cannot be written to: %s", bucket, wire.AsError(err).Message)
		}
	}
	return nil
}

// The formats of MaxConcurrency and MaxErrors: a number of instances or a percentage.
var (
	concurrencyShare = lazyregexp.New(`^([1-9][0-9]*|[1-9][0-9]%|[1-9]%|100%)$`)
	errorShare       = lazyregexp.New(`^([1-9][0-9]*|[0]|[1-9][0-9]%|[0-9]%|100%)$`)
)

var reference = lazyregexp.New(`{{ *ssm:([A-Za-z0-9_./:-]+) *}}`)

// resolved returns the parameters of a document with {{ssm:NAME}} replaced by the values
// in the Parameter Store.
func (s *Service) resolved(ctx context.Context, parameters map[string][]string) (map[string][]string, error) {
	out := map[string][]string{}
	for name, values := range parameters {
		out[name] = make([]string, 0, len(values))
		for _, value := range values {
			var failed error
			text := reference.Get().ReplaceAllStringFunc(value, func(written string) string {
				found, err := s.referred(ctx, reference.Get().FindStringSubmatch(written)[1])
				failed = cmp.Or(failed, err)
				return found
			})
			if failed != nil {
				return nil, failed
			}
			out[name] = append(out[name], text)
		}
	}
	return out, nil
}

// referred returns the Parameter Store's value for a parameter that a document refers to.
func (s *Service) referred(ctx context.Context, name string) (string, error) {
	out, err := s.GetParameter(ctx, &ssm.GetParameterInput{Name: &name})
	e, known := errors.AsType[*wire.Error](err)
	switch {
	case known:
		return "", wire.Errorf("InvalidParameters", "The parameter %s that the command refers to cannot be resolved: %s", name, cmp.Or(e.Message, e.Code))
	case err != nil:
		return "", err
	case out.Parameter.Type == ssm.ParameterTypeSecureString:
		return "", wire.Errorf("InvalidParameters", "The parameter %s is a SecureString, which %s cannot refer to.", name, shellDocument)
	}
	return *out.Parameter.Value, nil
}

// newPlan parses the parameters of the document.
func newPlan(parameters map[string][]string) (plan, error) {
	p := plan{limit: time.Hour}
	for name, values := range parameters {
		if name != "commands" && len(values) != 1 {
			return p, wire.Errorf("InvalidParameters", "Parameter %s has %d values; it must have one.", name, len(values))
		}
		switch name {
		case "commands":
			p.script = strings.Join(values, "\n") + "\n"
		case "workingDirectory":
			p.dir = values[0]
		case "executionTimeout":
			n, err := strconv.ParseUint(values[0], 10, 18)
			if err != nil || n < 1 || n > 172800 {
				return p, wire.Errorf("InvalidParameters", "The value %s of executionTimeout is not a number of seconds from 1 to 172800.", values[0])
			}
			p.limit = time.Duration(n) * time.Second
		default:
			return p, wire.Errorf("InvalidParameters", "%s is not a parameter of %s, which has commands, workingDirectory and executionTimeout.", name, shellDocument)
		}
	}
	switch {
	case len(parameters["commands"]) == 0:
		return p, wire.Errorf("InvalidParameters", "Parameter commands of %s is required.", shellDocument)
	case len(p.script) > maxScript:
		return p, wire.Errorf("MaxDocumentSizeExceeded", "The size limit of a document is 64 KB.")
	case strings.Contains(p.dir, "\x00"):
		return p, wire.Errorf("InvalidParameters", "workingDirectory is not a path.")
	}
	return p, nil
}

// share returns the number that text means, a number or a percentage of all. checkCommand
// has validated it.
func share(text string, all int) int {
	percent, relative := strings.CutSuffix(text, "%")
	n, _ := strconv.Atoi(percent)
	if relative {
		return all * n / 100
	}
	return n
}

// targets returns the managed instances that a command is for, in the order in which they
// are named, otherwise sorted by id.
func (s *Service) targets(ctx context.Context, in *ssm.SendCommandInput) ([]ec2types.Instance, error) {
	managed, err := s.managedInstances(ctx)
	if err != nil {
		return nil, err
	}
	managed = slices.DeleteFunc(managed, func(i ec2types.Instance) bool { return !s.opts.Machines.Managed(wire.CallerFrom(ctx), *i.InstanceId) })
	switch {
	case len(in.InstanceIds) > 0 && len(in.Targets) > 0:
		return nil, wire.Errorf("ValidationException", "InstanceIds and Targets cannot both be specified.")
	case len(in.InstanceIds) > 0:
		return named(managed, in.InstanceIds)
	case len(in.Targets) == 0:
		return nil, wire.Errorf("ValidationException", "The request must have InstanceIds or Targets.")
	}
	for _, t := range in.Targets {
		key := aws.ToString(t.Key)
		tag, tagged := strings.CutPrefix(key, "tag:")
		switch {
		case strings.EqualFold(key, "InstanceIds"):
			if managed, err = named(managed, t.Values); err != nil {
				return nil, err
			}
		case tagged:
			managed = slices.DeleteFunc(managed, func(i ec2types.Instance) bool { return !hasTag(i, tag, t.Values) })
		case key == "tag-key":
			managed = slices.DeleteFunc(managed, func(i ec2types.Instance) bool {
				return !slices.ContainsFunc(t.Values, func(key string) bool { return hasTag(i, key, nil) })
			})
		default:
			return nil, wire.Errorf("ValidationException", "The embedded cloud does not support the target key %s; use InstanceIds, tag:KEY or tag-key.", key)
		}
	}
	return managed, nil
}

// named returns the instances with these ids, in the order of ids.
func named(managed []ec2types.Instance, ids []string) (out []ec2types.Instance, err error) {
	for i, id := range ids {
		at := slices.IndexFunc(managed, func(m ec2types.Instance) bool { return *m.InstanceId == id })
		switch {
		case at < 0:
			return nil, wire.Errorf("InvalidInstanceId", "Instance %s is not managed: it does not run in this account and region, or has no instance profile.", id)
		case slices.Contains(ids[:i], id):
			return nil, wire.Errorf("DuplicateInstanceId", "The instance %s is named more than once.", id)
		}
		out = append(out, managed[at])
	}
	return out, nil
}

func hasTag(i ec2types.Instance, key string, values []string) bool {
	return slices.ContainsFunc(i.Tags, func(t ec2types.Tag) bool {
		return aws.ToString(t.Key) == key && (len(values) == 0 || slices.Contains(values, aws.ToString(t.Value)))
	})
}

func tagOf(i ec2types.Instance, key string) string {
	for _, t := range i.Tags {
		if aws.ToString(t.Key) == key {
			return aws.ToString(t.Value)
		}
	}
	return ""
}

// managedInstances returns the caller's instances that have an agent known to Systems
// Manager, or had one before they were stopped, sorted by id.
func (s *Service) managedInstances(ctx context.Context) (all []ec2types.Instance, err error) {
	out, err := s.opts.Machines.DescribeInstances(ctx, &ec2.DescribeInstancesInput{})
	if err != nil {
		return nil, err
	}
	for _, r := range out.Reservations {
		for _, i := range r.Instances {
			if i.IamInstanceProfile != nil && i.State.Name != ec2types.InstanceStateNameTerminated && i.State.Name != ec2types.InstanceStateNamePending {
				all = append(all, i)
			}
		}
	}
	sort.Slice(all, func(i, j int) bool { return *all[i].InstanceId < *all[j].InstanceId })
	return all, nil
}

// sent returns the command with the empty fields that Systems Manager shows and the state
// does not keep.
func (c *command) sent() ssm.Command {
	out := c.Sent
	for _, text := range []**string{&out.Comment, &out.OutputS3BucketName, &out.OutputS3KeyPrefix, &out.ServiceRole} {
		*text = aws.String(aws.ToString(*text))
	}
	out.InstanceIds, out.Targets = append([]string{}, out.InstanceIds...), append([]ssm.Target{}, out.Targets...)
	out.NotificationConfig = &ssm.NotificationConfig{NotificationArn: aws.String(""), NotificationEvents: []ssm.NotificationEvent{}}
	out.CloudWatchOutputConfig = &ssm.CloudWatchOutputConfig{CloudWatchLogGroupName: aws.String("")}
	return out
}

// shown returns the command as Systems Manager shows it.
func (c *command) shown() *ssm.Command {
	out := c.sent()
	out.TargetCount = int32(len(c.Invocations))
	pending, cancelled, timedOut, failed := 0, 0, 0, 0
	for i := range c.Invocations {
		v := &c.Invocations[i]
		if v.over() {
			out.CompletedCount++
		}
		if v.isError() {
			out.ErrorCount++
		}
		switch v.Status {
		case ssm.CommandInvocationStatusPending:
			pending++
		case ssm.CommandInvocationStatusCancelled:
			cancelled++
		case ssm.CommandInvocationStatusTimedOut:
			timedOut++
			failed++
			if v.Details == deliveryTimedOut {
				out.DeliveryTimedOutCount++
			}
		case ssm.CommandInvocationStatusFailed:
			failed++
		}
	}
	details := ""
	switch {
	case out.TargetCount == 0:
		out.Status, details = ssm.CommandStatusSuccess, "NoInstancesInTag"
	case out.CompletedCount < out.TargetCount && c.Cancelled:
		out.Status = ssm.CommandStatusCancelling
	case pending == len(c.Invocations):
		out.Status = ssm.CommandStatusPending
	case out.CompletedCount < out.TargetCount:
		out.Status = ssm.CommandStatusInProgress
	case c.Cancelled && cancelled > 0:
		out.Status = ssm.CommandStatusCancelled
	case failed == 0:
		out.Status = ssm.CommandStatusSuccess
	case timedOut == failed && failed == len(c.Invocations):
		out.Status, details = ssm.CommandStatusTimedOut, c.Invocations[0].Details
	case int(out.ErrorCount) <= share(*c.Sent.MaxErrors, len(c.Invocations)):
		out.Status, details = ssm.CommandStatusFailed, "Incomplete"
	default:
		out.Status = ssm.CommandStatusFailed
	}
	out.StatusDetails = aws.String(cmp.Or(details, string(out.Status)))
	return &out
}

// urls returns the URLs of the output of an invocation, or nil.
func (c *command) urls(v *invocation) (stdout, stderr *string) {
	if !v.Stored {
		return aws.String(""), aws.String("")
	}
	at := fmt.Sprintf("https://s3.%s.amazonaws.com/%s/", cmp.Or(aws.ToString(c.Sent.OutputS3Region), c.Region), aws.ToString(c.Sent.OutputS3BucketName))
	return aws.String(at + c.key(v.InstanceID, "stdout")), aws.String(at + c.key(v.InstanceID, "stderr"))
}

// key returns the name of the object that holds an output stream.
func (c *command) key(instance, stream string) string {
	prefix := strings.Trim(aws.ToString(c.Sent.OutputS3KeyPrefix), "/")
	if prefix != "" {
		prefix += "/"
	}
	return prefix + *c.Sent.CommandId + "/" + instance + "/awsrunShellScript/0.awsrunShellScript/" + stream
}

// forgetCommands deletes commands older than commandAge.
func (s *state) forgetCommands(now time.Time) error {
	for _, id := range s.commands.IDs() {
		if row := s.commands.Rows[id]; now.Sub(*row.Sent.RequestedDateTime) > commandAge && s.running[id] == nil {
			if err := s.commands.Drop(id); err != nil {
				return err
			}
		}
	}
	return nil
}

// sentCommand returns the caller's command, or nil.
func (s *state) sentCommand(c wire.Caller, id string) *command {
	if row, ok := s.commands.Get(id); ok && row.Account == c.Account && row.Region == c.Region {
		return row
	}
	return nil
}

// GetCommandInvocation returns the state of a command on an instance.
func (s *state) GetCommandInvocation(ctx context.Context, in *ssm.GetCommandInvocationInput) (*ssm.GetCommandInvocationOutput, error) {
	row := s.sentCommand(wire.CallerFrom(ctx), *in.CommandId)
	var v *invocation
	if row != nil {
		if i := slices.IndexFunc(row.Invocations, func(v invocation) bool { return v.InstanceID == *in.InstanceId }); i >= 0 {
			v = &row.Invocations[i]
		}
	}
	if v == nil {
		return nil, &wire.Error{Code: "InvocationDoesNotExist"}
	}
	if name := aws.ToString(in.PluginName); name != "" && name != shellPlugin {
		return nil, wire.Errorf("InvalidPluginName", "The plugin name %s is not valid; %s has %s.", name, shellDocument, shellPlugin)
	}
	sent := row.sent()
	out := &ssm.GetCommandInvocationOutput{
		CommandId: sent.CommandId, Comment: sent.Comment, DocumentName: sent.DocumentName, DocumentVersion: sent.DocumentVersion,
		InstanceId: &v.InstanceID, PluginName: aws.String(shellPlugin), Status: v.Status, StatusDetails: &v.Details, ResponseCode: v.Code,
		StandardOutputContent: &v.Stdout, StandardErrorContent: &v.Stderr, CloudWatchOutputConfig: sent.CloudWatchOutputConfig,
		ExecutionStartDateTime: aws.String(""), ExecutionEndDateTime: aws.String(""), ExecutionElapsedTime: aws.String(""),
	}
	out.StandardOutputUrl, out.StandardErrorUrl = row.urls(v)
	const layout = "2006-01-02T15:04:05.000Z"
	if !v.Started.IsZero() {
		out.ExecutionStartDateTime = aws.String(v.Started.Format(layout))
		if !v.Ended.IsZero() {
			out.ExecutionEndDateTime = aws.String(v.Ended.Format(layout))
			out.ExecutionElapsedTime = aws.String("PT" + strconv.FormatFloat(v.Ended.Sub(v.Started).Seconds(), 'f', -1, 64) + "S")
		}
	}
	return out, nil
}

// invoked returns the invocation as lists show it.
func (c *command) invoked(v *invocation, detailed bool) ssm.CommandInvocation {
	sent := c.sent()
	out := ssm.CommandInvocation{
		CommandId: sent.CommandId, InstanceId: &v.InstanceID, InstanceName: &v.InstanceName, Comment: sent.Comment, DocumentName: sent.DocumentName,
		DocumentVersion: sent.DocumentVersion, RequestedDateTime: sent.RequestedDateTime, Status: v.Status, StatusDetails: &v.Details,
		ServiceRole: sent.ServiceRole, NotificationConfig: sent.NotificationConfig, CloudWatchOutputConfig: sent.CloudWatchOutputConfig,
		CommandPlugins: []ssm.CommandPlugin{},
	}
	out.StandardOutputUrl, out.StandardErrorUrl = c.urls(v)
	if !detailed {
		return out
	}
	status := ssm.CommandPluginStatus(v.Status)
	if v.Status == ssm.CommandInvocationStatusCancelling {
		status = ssm.CommandPluginStatusInProgress
	}
	text := v.Stdout
	if v.Stderr != "" {
		text += "\n----------ERROR-------\n" + v.Stderr
	}
	plugin := ssm.CommandPlugin{
		Name: aws.String(shellPlugin), Status: status, StatusDetails: &v.Details, ResponseCode: v.Code, Output: aws.String(beginning(text, 2500)),
		OutputS3BucketName: sent.OutputS3BucketName, OutputS3KeyPrefix: sent.OutputS3KeyPrefix, OutputS3Region: sent.OutputS3Region,
		StandardOutputUrl: out.StandardOutputUrl, StandardErrorUrl: out.StandardErrorUrl,
	}
	if !v.Started.IsZero() {
		plugin.ResponseStartDateTime = &v.Started
	}
	if !v.Ended.IsZero() {
		plugin.ResponseFinishDateTime = &v.Ended
	}
	out.CommandPlugins = append(out.CommandPlugins, plugin)
	return out
}

// newest returns the caller's commands that a list selects, newest first.
func (s *state) newest(c wire.Caller, id *string, filters []ssm.CommandFilter, status func(*command, string) bool) ([]*command, error) {
	var rows []*command
	for _, row := range s.commands.All() {
		if row.Account == c.Account && row.Region == c.Region && (id == nil || *id == *row.Sent.CommandId) {
			rows = append(rows, row)
		}
	}
	if id != nil && len(rows) == 0 {
		return nil, wire.Errorf("InvalidCommandId", "The command %s does not exist.", *id)
	}
	for _, f := range filters {
		value := aws.ToString(f.Value)
		at, err := time.Parse(time.RFC3339, value)
		var want func(*command) bool
		switch f.Key {
		case ssm.CommandFilterKeyInvokedAfter:
			want = func(row *command) bool { return row.Sent.RequestedDateTime.After(at) }
		case ssm.CommandFilterKeyInvokedBefore:
			want = func(row *command) bool { return row.Sent.RequestedDateTime.Before(at) }
		case ssm.CommandFilterKeyStatus:
			want, err = func(row *command) bool { return status(row, value) }, nil
		case ssm.CommandFilterKeyDocumentName:
			want, err = func(row *command) bool { return *row.Sent.DocumentName == value }, nil
		case ssm.CommandFilterKeyExecutionStage:
			if value != "Executing" && value != "Complete" {
				return nil, validation("The value %s of the filter %s is not Executing or Complete.", value, f.Key)
			}
			want, err = func(row *command) bool {
				return (value == "Complete") == (row.shown().CompletedCount == row.shown().TargetCount)
			}, nil
		default:
			return nil, wire.Errorf("InvalidFilterKey", "The filter key %s is not valid.", f.Key)
		}
		if err != nil {
			return nil, wire.Errorf("ValidationException", "The value %s of the filter %s is not a time such as 2026-01-02T15:04:05Z.", value, f.Key)
		}
		rows = slices.DeleteFunc(rows, func(row *command) bool { return !want(row) })
	}
	sort.Slice(rows, func(i, j int) bool { return rows[i].order() > rows[j].order() })
	return rows, nil
}

// order returns the sort key of commands by the time at which they were sent.
func (c *command) order() string {
	return c.Sent.RequestedDateTime.Format("2006-01-02T15:04:05.000") + *c.Sent.CommandId
}

func descending(a, b string) int { return strings.Compare(b, a) }

// ListCommands lists commands.
func (s *state) ListCommands(ctx context.Context, in *ssm.ListCommandsInput) (*ssm.ListCommandsOutput, error) {
	rows, err := s.newest(wire.CallerFrom(ctx), in.CommandId, in.Filters, func(row *command, status string) bool {
		shown := row.shown()
		return string(shown.Status) == status || *shown.StatusDetails == status
	})
	if err != nil {
		return nil, err
	}
	if in.InstanceId != nil {
		rows = slices.DeleteFunc(rows, func(row *command) bool {
			return !slices.ContainsFunc(row.Invocations, func(v invocation) bool { return v.InstanceID == *in.InstanceId })
		})
	}
	page, next, ok := wire.Page("commands", rows, (*command).order, descending, int(cmp.Or(aws.ToInt32(in.MaxResults), 50)), in.NextToken)
	if !ok {
		return nil, wire.Errorf("InvalidNextToken", "The specified token is not valid.")
	}
	out := &ssm.ListCommandsOutput{Commands: []ssm.Command{}, NextToken: next}
	for _, row := range page {
		out.Commands = append(out.Commands, *row.shown())
	}
	return out, nil
}

// ListCommandInvocations lists invocations of commands.
func (s *state) ListCommandInvocations(ctx context.Context, in *ssm.ListCommandInvocationsInput) (*ssm.ListCommandInvocationsOutput, error) {
	wanted := []func(*invocation) bool{func(v *invocation) bool { return in.InstanceId == nil || v.InstanceID == *in.InstanceId }}
	for _, f := range in.Filters {
		switch status := aws.ToString(f.Value); f.Key {
		case ssm.CommandFilterKeyStatus:
			wanted = append(wanted, func(v *invocation) bool { return string(v.Status) == status || v.Details == status })
		case ssm.CommandFilterKeyExecutionStage:
			return nil, wire.Errorf("InvalidFilterKey", "The filter key %s is for ListCommands only.", f.Key)
		}
	}
	rows, err := s.newest(wire.CallerFrom(ctx), in.CommandId, in.Filters, func(*command, string) bool { return true })
	if err != nil {
		return nil, err
	}
	type found struct {
		of *command
		v  *invocation
	}
	var all []found
	for _, row := range rows {
		for i := len(row.Invocations) - 1; i >= 0; i-- { // in the order of order
			v := &row.Invocations[i]
			if !slices.ContainsFunc(wanted, func(want func(*invocation) bool) bool { return !want(v) }) {
				all = append(all, found{row, v})
			}
		}
	}
	key := func(f found) string {
		return fmt.Sprintf("%s.%06d", f.of.order(), slices.IndexFunc(f.of.Invocations, func(v invocation) bool { return v.InstanceID == f.v.InstanceID }))
	}
	page, next, ok := wire.Page("command invocations", all, key, descending, int(cmp.Or(aws.ToInt32(in.MaxResults), 50)), in.NextToken)
	if !ok {
		return nil, wire.Errorf("InvalidNextToken", "The specified token is not valid.")
	}
	out := &ssm.ListCommandInvocationsOutput{CommandInvocations: []ssm.CommandInvocation{}, NextToken: next}
	for _, f := range page {
		out.CommandInvocations = append(out.CommandInvocations, f.of.invoked(f.v, in.Details))
	}
	return out, nil
}
