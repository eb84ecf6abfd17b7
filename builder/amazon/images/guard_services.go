package images

import (
	"cmp"
	"context"
	"fmt"
	"net/url"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"bake/builder/amazon/internal/access"
	"bake/internal/lazyregexp"
)

// queryPages repeats a call until there are no more pages. page processes the page that was
// decoded into out, and returns the token of the next one.
func queryPages(ctx context.Context, q *access.Query, action string, params url.Values, out any, page func() string) error {
	for seen := map[string]bool{}; ; {
		reflect.ValueOf(out).Elem().SetZero() // or lists would grow
		if err := q.Do(ctx, action, params, out); err != nil {
			return err
		}
		token := page()
		if token == "" {
			return nil
		}
		if seen[token] {
			return fmt.Errorf("%s: the service returned the same page again", action)
		}
		seen[token] = true
		params.Set("NextToken", token)
	}
}

// groupTemplate is a reference to a launch template from an Auto Scaling group.
type groupTemplate struct {
	ID      string `xml:"LaunchTemplateId"`
	Name    string `xml:"LaunchTemplateName"`
	Version string
}

func (l *usageScan) groupUse(t groupTemplate, by Use) { l.names(cmp.Or(t.ID, t.Name), t.Version, by) }

// group is the part of an Auto Scaling group that defines what it launches, and its
// instances, which may be of an older version.
type group struct {
	Name          string        `xml:"AutoScalingGroupName"`
	Configuration string        `xml:"LaunchConfigurationName"`
	Template      groupTemplate `xml:"LaunchTemplate"`
	Mixed         struct {
		Template  groupTemplate `xml:"LaunchTemplateSpecification"`
		Overrides []struct {
			Template groupTemplate `xml:"LaunchTemplateSpecification"`
			ImageID  string        `xml:"ImageId"`
		} `xml:"Overrides>member"`
	} `xml:"MixedInstancesPolicy>LaunchTemplate"`
}

// scaling finds the images of Auto Scaling groups, including those without instances, and
// of launch configurations, including those without a group.
func (l *usageScan) scaling(ctx context.Context) error {
	q := l.a.session.AutoScaling(l.region)
	configured := map[string][]string{} // groups by launch configuration
	var groups struct {
		Groups []group `xml:"DescribeAutoScalingGroupsResult>AutoScalingGroups>member"`
		Token  string  `xml:"DescribeAutoScalingGroupsResult>NextToken"`
	}
	err := queryPages(ctx, q, "DescribeAutoScalingGroups", url.Values{"MaxRecords": {"100"}}, &groups, func() string {
		for _, g := range groups.Groups {
			by := Use{Guard: GuardScaling, User: "Auto Scaling group " + g.Name, id: g.Name}
			configured[g.Configuration] = append(configured[g.Configuration], g.Name)
			l.groupUse(g.Template, by)
			l.groupUse(g.Mixed.Template, by)
			for _, o := range g.Mixed.Overrides {
				l.groupUse(o.Template, by)
				l.use(o.ImageID, by)
			}
		}
		return groups.Token
	})
	if err != nil {
		return err
	}
	var configurations struct {
		Configurations []struct {
			Name    string `xml:"LaunchConfigurationName"`
			ImageID string `xml:"ImageId"`
			Devices []struct {
				Snapshot string `xml:"Ebs>SnapshotId"`
			} `xml:"BlockDeviceMappings>member"`
		} `xml:"DescribeLaunchConfigurationsResult>LaunchConfigurations>member"`
		Token string `xml:"DescribeLaunchConfigurationsResult>NextToken"`
	}
	return queryPages(ctx, q, "DescribeLaunchConfigurations", url.Values{"MaxRecords": {"100"}}, &configurations, func() string {
		for _, c := range configurations.Configurations {
			by := Use{Guard: GuardScaling, User: "launch configuration " + c.Name, id: c.Name}
			if groups := configured[c.Name]; len(groups) > 0 {
				by.User += " of Auto Scaling group " + strings.Join(groups, ", ")
			}
			l.use(c.ImageID, by)
			for _, d := range c.Devices {
				l.maps(d.Snapshot, by)
			}
		}
		return configurations.Token
	})
}

// aliasPrefix is the prefix of a reference to an image by a parameter of Systems Manager.
const aliasPrefix = "resolve:ssm:"

// alias is a resource that names its image by a parameter.
type alias struct {
	name string // of the parameter, perhaps with a version or label
	by   Use
}

// parametersAtOnce is the maximum number of parameters in a call of GetParameters.
const parametersAtOnce = 10

// parameterID returns the part of a parameter's ARN that names it.
func parameterID(name string) string { return "parameter/" + strings.TrimPrefix(name, "/") }

// resolve finds the images that aliases refer to. EC2 resolves aliases only for single
// versions of launch templates.
func (l *usageScan) resolve(ctx context.Context) {
	users := map[string][]Use{}
	for _, a := range l.aliases {
		users[a.name] = append(users[a.name], a.by)
	}
	l.aliases = nil
	var names []string
	for n := range users {
		names = append(names, n)
	}
	slices.Sort(names)
	values, err := l.values(ctx, names)
	for name, by := range users {
		for _, u := range by {
			switch p, ok := values[name]; {
			case err != nil:
				l.unless(u.Guard, fmt.Errorf("the parameter %s, which names an image of the %s, could not be read: %w", name, u.User, err))
			case !ok:
				l.missing(u, "parameter "+name)
			default:
				u.User += ", by the parameter " + name
				l.use(p.Value, u)
			}
		}
	}
}

// values returns the parameters that exist, by the names in the request.
func (l *usageScan) values(ctx context.Context, names []string) (map[string]parameterVersion, error) {
	found := map[string]parameterVersion{}
	for some := range slices.Chunk(names, parametersAtOnce) {
		var out struct {
			Parameters        []parameterVersion
			InvalidParameters []string
		}
		if err := l.a.session.SSM(l.region).Do(ctx, "GetParameters", map[string]any{"Names": some}, &out); err != nil {
			return nil, err
		}
		for _, p := range out.Parameters {
			for _, name := range []string{p.Name, p.ARN} {
				found[name+p.Selector] = p
			}
		}
		for _, name := range some {
			if _, ok := found[name]; !ok && !slices.Contains(out.InvalidParameters, name) {
				return nil, fmt.Errorf("GetParameters: the answer says nothing of %s", name)
			}
		}
	}
	return found, nil
}

// channels finds the images that parameters of the data type aws:ec2:image name now or
// named before, which a rollback needs, and the images whose IDs are in the text of other
// parameters.
func (l *usageScan) channels(ctx context.Context) error {
	names, texts, err := l.parameters(ctx)
	if err != nil {
		return err
	}
	if err := l.mentions(ctx, texts); err != nil {
		return err
	}
	return l.naming(ctx, names)
}

// naming finds the images that parameters name now or named before.
func (l *usageScan) naming(ctx context.Context, names []string) error {
	current, err := l.current(ctx, names)
	if err != nil {
		return err
	}
	return l.previous(ctx, names, current)
}

// current finds the images that parameters name, and returns their values.
func (l *usageScan) current(ctx context.Context, names []string) (map[string]parameterVersion, error) {
	current, err := l.values(ctx, names)
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		if p, ok := current[name]; ok { // otherwise it was deleted meanwhile
			l.use(p.Value, Use{Guard: GuardChannel, User: "parameter " + name, id: parameterID(name)})
		}
	}
	return current, nil
}

// previous finds the images that parameters named before their current values.
func (l *usageScan) previous(ctx context.Context, names []string, current map[string]parameterVersion) error {
	var before []string
	for _, name := range names {
		if p := current[name]; p.Version > 1 {
			before = append(before, previousName(p))
		}
	}
	previous, err := l.values(ctx, before)
	if err != nil {
		return err
	}
	for _, name := range names {
		p, ok := current[name]
		if !ok || p.Version < 2 {
			continue
		}
		old, ok := previous[previousName(p)]
		value := old.Value
		if !ok || value == p.Value { // then an older version is the last that differs
			if value, err = l.lastOther(ctx, name, p); err != nil {
				return err
			}
		}
		l.use(value, Use{Guard: GuardChannel, User: "parameter " + name + ", as its previous value, which a rollback needs", past: true, id: parameterID(name)})
	}
	return nil
}

func previousName(p parameterVersion) string {
	return p.Name + ":" + strconv.FormatInt(p.Version-1, 10)
}

// parameters returns the names of the parameters that name images, and of those that
// contain text. It leaves out secrets.
func (l *usageScan) parameters(ctx context.Context) (images, texts []string, err error) {
	in := map[string]any{"MaxResults": 50, "ParameterFilters": []map[string]any{{"Key": "Type", "Option": "Equals", "Values": []string{"String", "StringList"}}}}
	err = parameterPages(ctx, l.a.session.SSM(l.region), "DescribeParameters", in, func(p parameterVersion) {
		if p.DataType == imageType {
			images = append(images, p.Name)
		} else {
			texts = append(texts, p.Name)
		}
	})
	return images, texts, err
}

// imageIDs matches the IDs of images in a text.
var imageIDs = lazyregexp.New(`\bami-([0-9a-f]{17}|[0-9a-f]{8})\b`)

// mentions finds the images whose IDs occur in parameters that contain text. A parameter
// that consists only of an ID names the image.
func (l *usageScan) mentions(ctx context.Context, names []string) error {
	values, err := l.values(ctx, names)
	if err != nil {
		return err
	}
	for _, name := range names {
		value := strings.TrimSpace(values[name].Value)
		for _, id := range imageIDs.Get().FindAllString(value, -1) {
			l.use(id, Use{Guard: GuardChannel, User: "parameter " + name + ", a text", id: parameterID(name), past: id != value})
		}
	}
	return nil
}

// lastOther returns the last value of a parameter that is not its current one; empty if it
// never had another.
func (l *usageScan) lastOther(ctx context.Context, name string, p parameterVersion) (value string, err error) {
	newest := int64(0)
	err = parameterHistory(ctx, l.a.session.SSM(l.region), name, func(h parameterVersion) {
		if h.Version < p.Version && h.Version > newest && h.Value != p.Value {
			newest, value = h.Version, h.Value
		}
	})
	if access.Is(err, "ParameterNotFound") {
		return "", nil // deleted meanwhile
	}
	return value, err
}
