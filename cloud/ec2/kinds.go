package ec2

import (
	"cmp"
	"reflect"
	"slices"
	"sort"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"bake/cloud/lazyregexp"
	"bake/cloud/wire"
)

// kind is a kind of resource: the form of its ids, the errors for resources that do not
// exist, and how it is described. Kinds that have a table are registered in openState.
type kind struct {
	prefix   string // of ids
	field    string // of the SDK's structs and inputs: holds the id
	named    string // of the SDK's structs: holds the name, if the kind has names
	made     string // of the rows: holds the creation time, if lists begin with the newest
	resource string // types.ResourceType
	noun     string

	code      string // error code, before ".NotFound" and malformed
	malformed string // suffix; empty means ".Malformed"
	gone      string // suffix for ids that do not exist; empty means ".NotFound"
	absent    string // message for an id that does not exist; empty means the usual one
	allAbsent string // message for several such ids; empty means absent, with the first

	filters  filters
	set      string // parameter of ids that cannot be combined with a page size, if there is one
	min, max int32  // page sizes; a max of 0 means any
}

const (
	usualAbsent    = "The %s ID '%s' does not exist"
	usualAllAbsent = "The %s IDs '%s' do not exist"
)

var (
	kindImage = &kind{prefix: "ami", field: "ImageId", named: "Name", made: "CreationDate", resource: "image", noun: "image", code: "InvalidAMIID",
		absent: "The %s id '[%s]' does not exist", allAbsent: "The %s ids '[%s]' do not exist", filters: imageFilters}
	kindInstance = &kind{prefix: "i", field: "InstanceId", made: "Created", resource: "instance", noun: "instance", code: "InvalidInstanceID",
		filters: instanceFilters, set: "instancesSet", min: 5, max: 1000}
	kindSnapshot = &kind{prefix: "snap", field: "SnapshotId", made: "StartTime", resource: "snapshot", noun: "snapshot", code: "InvalidSnapshot", malformed: "ID.Malformed",
		absent: "The %s '%s' does not exist.", filters: snapshotFilters, set: "snapshotSet", min: 5, max: 1000}
	kindVolume = &kind{prefix: "vol", field: "VolumeId", made: "CreateTime", resource: "volume", noun: "volume", code: "InvalidVolume", malformed: "ID.Malformed",
		absent: "The %s '%s' does not exist.", allAbsent: "The %ss '%s' do not exist", filters: volumeFilters, set: "volumeSet", min: 5, max: 1000}
	kindGroup = &kind{prefix: "sg", field: "GroupId", named: "GroupName", resource: "security-group", noun: "security group", code: "InvalidGroup", malformed: "Id.Malformed",
		absent: "The %s '%s' does not exist", allAbsent: "The %ss '%s' do not exist", filters: groupFilters, min: 5, max: 1000}
	kindRule = &kind{prefix: "sgr", field: "SecurityGroupRuleId", resource: "security-group-rule", noun: "security group rule",
		code: "InvalidSecurityGroupRuleId", filters: ruleFilters, min: 5, max: 1000}
	kindImport = &kind{prefix: "import-ami", field: "ImportTaskId", resource: "import-image-task", noun: "import task", code: "InvalidConversionTaskId",
		filters: importFilters}
	kindExport = &kind{prefix: "export-ami", field: "ExportImageTaskId", resource: "export-image-task", noun: "export task", code: "InvalidExportTaskID",
		filters: exportFilters, min: 1, max: 500}
	kindKey = &kind{prefix: "key", field: "KeyPairId", named: "KeyName", resource: "key-pair", noun: "key pair", code: "InvalidKeyPair",
		absent: "The %s '%s' does not exist", allAbsent: "The %ss '%s' do not exist", filters: keyFilters}
	kindVpc        = &kind{prefix: "vpc", field: "VpcId", resource: "vpc", noun: "vpc", code: "InvalidVpcID", filters: vpcFilters, min: 5, max: 1000}
	kindSubnet     = &kind{prefix: "subnet", field: "SubnetId", resource: "subnet", noun: "subnet", code: "InvalidSubnetID", filters: subnetFilters, min: 5, max: 1000}
	kindRouteTable = &kind{prefix: "rtb", field: "RouteTableId", resource: "route-table", noun: "routeTable", code: "InvalidRouteTableID", filters: routeTableFilters, min: 5, max: 100}
	kindAddress    = &kind{prefix: "eipalloc", field: "AllocationId", resource: "elastic-ip", noun: "allocation", code: "InvalidAllocationID", filters: addressFilters}
	kindConnect    = &kind{prefix: "eice", field: "InstanceConnectEndpointId", resource: "instance-connect-endpoint", noun: "instance connect endpoint",
		code: "InvalidInstanceConnectEndpointId", filters: connectFilters, min: 1, max: 50}
	kindGateway = &kind{prefix: "igw", field: "InternetGatewayId", resource: "internet-gateway", noun: "internetGateway", code: "InvalidInternetGatewayID",
		filters: gatewayFilters, min: 5, max: 1000}
	kindACL       = &kind{prefix: "acl", field: "NetworkAclId", resource: "network-acl", noun: "networkAcl", code: "InvalidNetworkAclID", filters: aclFilters, min: 5, max: 1000}
	kindDhcp      = &kind{prefix: "dopt", field: "DhcpOptionsId", resource: "dhcp-options", noun: "dhcpOption", code: "InvalidDhcpOptionID", filters: dhcpFilters, min: 5, max: 1000}
	kindInterface = &kind{prefix: "eni", field: "NetworkInterfaceId", resource: "network-interface", noun: "networkInterface",
		code: "InvalidNetworkInterfaceID", filters: interfaceFilters, set: "networkInterfaceIdSet", min: 5, max: 1000}
	kindNat = &kind{prefix: "nat", field: "NatGatewayId", resource: "natgateway", noun: "NAT gateway", code: "NatGateway", gone: "NotFound", malformed: "Malformed",
		absent: "%s %s was not found", filters: natFilters, min: 5, max: 1000}
	kindEndpoint = &kind{prefix: "vpce", field: "VpcEndpointId", resource: "vpc-endpoint", noun: "Vpc Endpoint", code: "InvalidVpcEndpointId",
		absent: "The %s Id '%s' does not exist", filters: endpointFilters, min: 5, max: 1000}
	kindPrefixList = &kind{prefix: "pl", field: "PrefixListId", noun: "prefix list", code: "InvalidPrefixListId", filters: prefixListFilters, min: 5, max: 1000}
	kindSpot       = &kind{prefix: "sir", field: "SpotInstanceRequestId", resource: "spot-instances-request", noun: "spot instance request",
		code: "InvalidSpotInstanceRequestID", filters: spotFilters}
	kindTemplate = &kind{prefix: "lt", field: "LaunchTemplateId", named: "LaunchTemplateName", resource: "launch-template", noun: "launch template", code: "InvalidLaunchTemplateId",
		filters: templateFilters, min: 1, max: 200}
	kindUsage = &kind{prefix: "amiur", field: "ReportId", resource: "image-usage-report", noun: "image usage report", code: "InvalidImageUsageReportId",
		filters: usageFilters, min: 1, max: 1000}
	kindAssociation = &kind{prefix: "iip-assoc", field: "AssociationId", noun: "association", code: "InvalidAssociationID", filters: associationFilters}
)

// taggableKinds returns the kinds whose resources have tags.
func taggableKinds() []*kind {
	return []*kind{kindImage, kindInstance, kindSnapshot, kindVolume, kindGroup, kindRule, kindImport, kindExport, kindKey, kindVpc, kindSubnet, kindRouteTable, kindGateway, kindACL, kindDhcp, kindAddress, kindConnect, kindNat, kindEndpoint, kindInterface, kindSpot, kindTemplate, kindUsage}
}

// with returns a copy of the kind with other filters.
func (k *kind) with(f filters) *kind {
	other := *k
	other.filters = f
	return &other
}

var idDigits = lazyregexp.New(`^([0-9a-f]{8}|[0-9a-f]{17})$`)

// check reports an id that is malformed for k.
func (k *kind) check(id string) error {
	digits, ok := strings.CutPrefix(id, k.prefix+"-")
	if ok && idDigits.Get().MatchString(digits) {
		return nil
	}
	return wire.Errorf(k.code+cmp.Or(k.malformed, ".Malformed"), `Invalid id: "%s" (expecting "%s-...")`, id, k.prefix)
}

// notFound returns the error for ids of k that do not exist.
func (k *kind) notFound(ids ...string) error {
	text, list := cmp.Or(k.absent, usualAbsent), ids[0]
	if all := k.allAbsent; len(ids) > 1 && (all != "" || k.absent == "") {
		text, list = cmp.Or(all, usualAllAbsent), strings.Join(ids, ", ")
	}
	return wire.Errorf(k.code+cmp.Or(k.gone, ".NotFound"), text, k.noun, list)
}

// name returns the name in a row, if the kind has names.
func (k *kind) name(row any) string { return textIn(reflect.ValueOf(row), k.named) }

func textIn(row reflect.Value, field string) string {
	text, _ := reflect.Indirect(row).FieldByName(field).Interface().(*string)
	return aws.ToString(text)
}

// query holds the common parameters of Describe actions.
type query struct {
	ids     []string // of the rows; empty means all
	filters []types.Filter
	max     *int32
	token   *string
}

// checkPage reports a page size that the kind does not allow.
func (k *kind) checkPage(q query) error {
	switch {
	case q.max != nil && len(q.ids) > 0 && k.set != "":
		return wire.Errorf("InvalidParameterCombination", "The parameter %s cannot be used with the parameter maxResults", k.set)
	case k.max > 0:
		return checkMax(q.max, k.min, k.max)
	}
	return nil
}

// checkMax reports a page size outside the action's limits.
func checkMax(max *int32, least, most int32) error {
	if max != nil && (*max < least || *max > most) {
		return invalidValue("Value ( %d ) for parameter maxResults is invalid. Expecting a value between %d and %d.", *max, least, most)
	}
	return nil
}

// list returns the page of rows that q asks for. EC2 promises no order; here rows are in
// the order of [kind.key].
func list[V any](s *state, k *kind, q query, rows []V) ([]V, *string, error) {
	if err := k.checkPage(q); err != nil {
		return nil, nil, err
	}
	rows, err := pick(s, k, q.ids, rows)
	if err != nil {
		return nil, nil, err
	}
	return listed(k, q, rows)
}

// listed is like list, for rows that pick has already selected.
func listed[V any](k *kind, q query, rows []V) ([]V, *string, error) {
	cut, next, err := k.listed(q, reflect.ValueOf(rows))
	if err != nil {
		return nil, nil, err
	}
	return cut.Interface().([]V), next, nil
}

func (k *kind) listed(q query, rows reflect.Value) (reflect.Value, *string, error) {
	rows, err := k.filters.apply(q.filters, rows)
	if err != nil {
		return rows, nil, err
	}
	order := byKey{swap: reflect.Swapper(rows.Interface())}
	for i := range rows.Len() {
		order.keys = append(order.keys, k.key(rows.Index(i)))
	}
	sort.Sort(order)
	return pageOf(rows, func(i int) string { return order.keys[i] }, q.max, q.token)
}

// key returns the sort key of a row: its id, preceded by its creation time if lists begin
// with the newest.
func (k *kind) key(row reflect.Value) string {
	id := textIn(row, k.field)
	if made := reflect.Indirect(row).FieldByName(k.made); made.IsValid() {
		return newestFirst(strings.Join(collect(made, nil), "")) + id
	}
	return id
}

// newestFirst returns a text that sorts in the reverse order of a time's text.
func newestFirst(at string) string {
	return strings.Map(func(r rune) rune {
		if r >= '0' && r <= '9' {
			return '9' - (r - '0')
		}
		return r
	}, at)
}

// byKey sorts by keys; swap swaps the corresponding rows.
type byKey struct {
	keys []string
	swap func(i, j int)
}

func (b byKey) Len() int           { return len(b.keys) }
func (b byKey) Less(i, j int) bool { return b.keys[i] < b.keys[j] }
func (b byKey) Swap(i, j int) {
	b.keys[i], b.keys[j] = b.keys[j], b.keys[i]
	b.swap(i, j)
}

// pick returns the rows with those ids, or all rows if ids is empty. An id that is
// malformed or of no row is an error. Rows that an EffectHide rule still conceals are left
// out.
func pick[V any](s *state, k *kind, ids []string, rows []V) ([]V, error) {
	picked, err := s.pick(k, ids, reflect.ValueOf(rows))
	if err != nil {
		return nil, err
	}
	return picked.Interface().([]V), nil
}

func (s *state) pick(k *kind, ids []string, rows reflect.Value) (reflect.Value, error) {
	var found []string
	rows = keep(rows, func(row reflect.Value) bool {
		id := textIn(row, k.field)
		if len(ids) > 0 && !slices.Contains(ids, id) {
			return false
		}
		found = append(found, id)
		return true
	})
	lacking, err := k.lacking(ids, found)
	if err != nil {
		return rows, err
	}
	if len(lacking) > 0 {
		return rows, k.notFound(lacking...)
	}
	hidden := s.concealed(found)
	if len(ids) > 0 && len(hidden) > 0 {
		return rows, k.notFound(hidden...)
	}
	return keep(rows, func(row reflect.Value) bool { return !slices.Contains(hidden, textIn(row, k.field)) }), nil
}

// lacking returns the ids that are not in found.
func (k *kind) lacking(ids, found []string) (lacking []string, err error) {
	for _, id := range ids {
		if err := k.check(id); err != nil {
			return nil, err
		}
		if !slices.Contains(found, id) {
			lacking = append(lacking, id)
		}
	}
	return lacking, nil
}

func invalidValue(format string, args ...any) error {
	return wire.Errorf("InvalidParameterValue", format, args...)
}

func missing(parameter string) error {
	return wire.Errorf("MissingParameter", "The request must contain the parameter %s", parameter)
}
