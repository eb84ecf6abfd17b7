package ec2

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sort"
	"strconv"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"bake/cloud/lazyregexp"
	"bake/cloud/machine"
	"bake/cloud/wire"
)

// family is a family of instance types whose sizes follow one rule. A machine of the
// embedded cloud gets no more than its type's resources, and no more than the host has.
type family struct {
	name  string
	arch  types.ArchitectureType
	gib   int32 // GiB of memory for each virtual CPU
	sizes string
}

func families() []family {
	const (
		x86, arm = types.ArchitectureTypeX8664, types.ArchitectureTypeArm64
		usual    = "large xlarge 2xlarge 4xlarge 8xlarge 12xlarge 16xlarge 24xlarge"
		old      = "large xlarge 2xlarge 4xlarge"
	)
	return []family{
		{"c5", x86, 2, "large xlarge 2xlarge 4xlarge 9xlarge 12xlarge 18xlarge 24xlarge"}, {"c5a", x86, 2, usual},
		{"c6a", x86, 2, usual}, {"c6g", arm, 2, "medium " + strings.TrimSuffix(usual, " 24xlarge")}, {"c6i", x86, 2, usual},
		{"c7a", x86, 2, "medium " + usual}, {"c7g", arm, 2, "medium " + strings.TrimSuffix(usual, " 24xlarge")}, {"c7i", x86, 2, usual},
		{"m4", x86, 4, old}, {"m5", x86, 4, usual}, {"m5a", x86, 4, usual}, {"m6a", x86, 4, usual}, {"m6g", arm, 4, "medium " + strings.TrimSuffix(usual, " 24xlarge")},
		{"m6i", x86, 4, usual}, {"m7a", x86, 4, "medium " + usual}, {"m7g", arm, 4, "medium " + strings.TrimSuffix(usual, " 24xlarge")}, {"m7i", x86, 4, usual},
		{"r5", x86, 8, usual}, {"r5a", x86, 8, usual}, {"r6g", arm, 8, "medium " + strings.TrimSuffix(usual, " 24xlarge")}, {"r6i", x86, 8, usual},
		{"r7g", arm, 8, "medium " + strings.TrimSuffix(usual, " 24xlarge")}, {"r7i", x86, 8, usual},
	}
}

// burstable returns the types whose memory follows no rule, with their memory in MiB.
func burstable() map[string]int32 {
	return map[string]int32{"nano": 512, "micro": 1024, "small": 2048, "medium": 4096, "large": 8192, "xlarge": 16384, "2xlarge": 32768}
}

var armFamily = lazyregexp.New(`^([a-z]+[0-9]+g[a-z]*|a1)$`)

// processorOf returns the GOARCH name of an EC2 architecture; empty if it is unknown.
func processorOf(architecture types.ArchitectureValues) string {
	return map[types.ArchitectureValues]string{types.ArchitectureValuesX8664: "amd64", types.ArchitectureValuesArm64: "arm64"}[architecture]
}

// architectureOf derives an instance type's architecture from its name: a g after the
// generation means Amazon's own processor. It also works for types that are not described
// here.
func architectureOf(t types.InstanceType) types.ArchitectureValues {
	name, _, _ := strings.Cut(string(t), ".")
	if armFamily.Get().MatchString(name) {
		return types.ArchitectureValuesArm64
	}
	return types.ArchitectureValuesX8664
}

// checkType reports an instance type that EC2 does not have. An empty type means the
// default.
func checkType(t types.InstanceType) error {
	if t != "" && !slices.Contains(t.Values(), t) {
		return invalidValue("Invalid value '%s' for InstanceType.", t)
	}
	return nil
}

// describedTypes returns the described instance types, sorted by name.
func describedTypes() []types.InstanceTypeInfo {
	var out []types.InstanceTypeInfo
	for _, f := range families() {
		for size := range strings.FieldsSeq(f.sizes) {
			cpus := cpusOf(size)
			out = append(out, typeInfo(f.name+"."+size, f.arch, cpus, cpus*f.gib<<10, false))
		}
	}
	for _, name := range []string{"t2", "t3", "t3a", "t4g"} {
		for size, mib := range burstable() {
			cpus := max(2, cpusOf(size))
			if name == "t2" && slices.Contains([]string{"nano", "micro", "small"}, size) {
				cpus = 1
			}
			arch := types.ArchitectureTypeX8664
			if name == "t4g" {
				arch = types.ArchitectureTypeArm64
			}
			out = append(out, typeInfo(name+"."+size, arch, cpus, mib, true))
		}
	}
	// The first generation. A launch without a type gets m1.small.
	out = append(out, typeInfo("t1.micro", types.ArchitectureTypeX8664, 1, 627, false))
	for size, mib := range map[string]int32{"small": 1740, "medium": 3788, "large": 7680, "xlarge": 15360} {
		out = append(out, typeInfo("m1."+size, types.ArchitectureTypeX8664, cpusOf(size), mib, false))
	}
	sort.Slice(out, func(i, j int) bool { return out[i].InstanceType < out[j].InstanceType })
	return out
}

// limitsOf returns the size of a machine of an instance type. Types that are not described
// have no limits.
func limitsOf(name types.InstanceType) machine.Limits {
	for _, t := range describedTypes() {
		if t.InstanceType == name {
			mib := *t.MemoryInfo.SizeInMiB
			// Linux's default limit of processes for this much memory.
			return machine.Limits{CPUs: int(*t.VCpuInfo.DefaultVCpus), Memory: mib << 20, Processes: int(mib * 8)}
		}
	}
	return machine.Limits{}
}

func cpusOf(size string) int32 {
	switch size {
	case "large":
		return 2
	case "xlarge":
		return 4
	}
	if n, err := strconv.Atoi(strings.TrimSuffix(size, "xlarge")); err == nil {
		return int32(4 * n)
	}
	return 1
}

// cpuOptions returns an instance type's number of cores and of threads per core. Amazon's
// processors, AMD's since generation 7, t2, and types with a single virtual CPU have one thread per
// core.
func cpuOptions(t types.InstanceType) (cores, threads int32) {
	family, size, _ := strings.Cut(string(t), ".")
	cpus := cpusOf(size)
	if slices.Contains([]string{"t3", "t3a", "t4g"}, family) {
		cpus = max(2, cpus)
	}
	if cpus == 1 || slices.Contains([]string{"t2", "c7a", "m7a"}, family) || architectureOf(t) == types.ArchitectureValuesArm64 {
		return cpus, 1
	}
	return cpus / 2, 2
}

func typeInfo(name string, arch types.ArchitectureType, cpus, mib int32, burst bool) types.InstanceTypeInfo {
	hypervisor := types.InstanceTypeHypervisorNitro
	ena := types.EnaSupportRequired
	family, _, _ := strings.Cut(name, ".")
	previous := slices.Contains([]string{"t1", "m1", "m4"}, family)
	if previous || family == "t2" {
		hypervisor, ena = types.InstanceTypeHypervisorXen, types.EnaSupportUnsupported
	}
	architectures := []types.ArchitectureType{arch}
	if family == "t2" || name == "t1.micro" || name == "m1.small" || name == "m1.medium" {
		architectures = []types.ArchitectureType{types.ArchitectureTypeI386, arch}
	}
	cores, threads := cpuOptions(types.InstanceType(name))
	validThreads := []int32{1, 2}[:threads] // hyperthreading can be disabled
	return types.InstanceTypeInfo{
		InstanceType: types.InstanceType(name), BurstablePerformanceSupported: &burst, CurrentGeneration: aws.Bool(!previous),
		BareMetal: aws.Bool(false), FreeTierEligible: aws.Bool(name == "t2.micro" || name == "t3.micro"), Hypervisor: hypervisor,
		InstanceStorageSupported: aws.Bool(false), HibernationSupported: aws.Bool(false), AutoRecoverySupported: aws.Bool(true),
		DedicatedHostsSupported: aws.Bool(!burst), MemoryInfo: &types.MemoryInfo{SizeInMiB: aws.Int64(int64(mib))},
		ProcessorInfo: &types.ProcessorInfo{SupportedArchitectures: architectures},
		VCpuInfo:      &types.VCpuInfo{DefaultVCpus: &cpus, DefaultCores: &cores, DefaultThreadsPerCore: &threads, ValidThreadsPerCore: validThreads},
		EbsInfo:       &types.EbsInfo{EbsOptimizedSupport: types.EbsOptimizedSupportDefault, EncryptionSupport: types.EbsEncryptionSupportSupported},
		NetworkInfo: &types.NetworkInfo{
			EnaSupport: ena, MaximumNetworkInterfaces: aws.Int32(int32(maxInterfaces(types.InstanceType(name)))), MaximumNetworkCards: aws.Int32(1),
			Ipv4AddressesPerInterface: aws.Int32(1), Ipv6AddressesPerInterface: aws.Int32(0), Ipv6Supported: aws.Bool(false),
			EfaSupported: aws.Bool(false), EncryptionInTransitSupported: aws.Bool(false),
		},
		SupportedRootDeviceTypes: []types.RootDeviceType{types.RootDeviceTypeEbs}, SupportedUsageClasses: []types.UsageClassType{types.UsageClassTypeOnDemand, types.UsageClassTypeSpot},
		SupportedVirtualizationTypes: []types.VirtualizationType{types.VirtualizationTypeHvm},
	}
}

// typeFilters has no filters for what is not known of a type here: its bandwidth, clock speed,
// and other numbers of cores than the default.
var typeFilters = filters{
	{"auto-recovery-supported", "AutoRecoverySupported"}, {"bare-metal", "BareMetal"}, {"burstable-performance-supported", "BurstablePerformanceSupported"},
	{"current-generation", "CurrentGeneration"}, {"dedicated-hosts-supported", "DedicatedHostsSupported"},
	{"ebs-info.ebs-optimized-support", "EbsInfo.EbsOptimizedSupport"}, {"ebs-info.encryption-support", "EbsInfo.EncryptionSupport"}, {"ebs-info.nvme-support", ""},
	{"free-tier-eligible", "FreeTierEligible"}, {"hibernation-supported", "HibernationSupported"}, {"hypervisor", "Hypervisor"},
	{"instance-storage-info.disk.count", ""}, {"instance-storage-info.disk.size-in-gb", ""}, {"instance-storage-info.disk.type", ""},
	{"instance-storage-info.encryption-support", ""}, {"instance-storage-info.nvme-support", ""}, {"instance-storage-info.total-size-in-gb", ""},
	{"instance-storage-supported", "InstanceStorageSupported"}, {"instance-type", "InstanceType"}, {"memory-info.size-in-mib", "MemoryInfo.SizeInMiB"},
	{"network-info.ena-support", "NetworkInfo.EnaSupport"}, {"network-info.ipv6-supported", "NetworkInfo.Ipv6Supported"},
	{"network-info.efa-info.maximum-efa-interfaces", ""}, {"network-info.efa-supported", "NetworkInfo.EfaSupported"},
	{"network-info.encryption-in-transit-supported", "NetworkInfo.EncryptionInTransitSupported"}, {"network-info.maximum-network-cards", "NetworkInfo.MaximumNetworkCards"},
	{"network-info.ipv4-addresses-per-interface", "NetworkInfo.Ipv4AddressesPerInterface"}, {"network-info.ipv6-addresses-per-interface", "NetworkInfo.Ipv6AddressesPerInterface"},
	{"network-info.maximum-network-interfaces", "NetworkInfo.MaximumNetworkInterfaces"},
	{"processor-info.supported-architecture", "ProcessorInfo.SupportedArchitectures"}, {"supported-boot-mode", ""},
	{"supported-root-device-type", "SupportedRootDeviceTypes"}, {"supported-usage-class", "SupportedUsageClasses"},
	{"supported-virtualization-type", "SupportedVirtualizationTypes"}, {"vcpu-info.default-vcpus", "VCpuInfo.DefaultVCpus"},
	{"vcpu-info.default-cores", "VCpuInfo.DefaultCores"}, {"vcpu-info.default-threads-per-core", "VCpuInfo.DefaultThreadsPerCore"},
	{"vcpu-info.valid-threads-per-core", "VCpuInfo.ValidThreadsPerCore"},
}

func (s *Service) DescribeInstanceTypes(_ context.Context, in *ec2.DescribeInstanceTypesInput) (*ec2.DescribeInstanceTypesOutput, error) {
	type row struct {
		types.InstanceTypeInfo
		Tags []types.Tag // instance types have none
	}
	var rows []row
	have := map[types.InstanceType]bool{}
	for _, t := range describedTypes() {
		have[t.InstanceType] = true
		if len(in.InstanceTypes) == 0 || slices.Contains(in.InstanceTypes, t.InstanceType) {
			rows = append(rows, row{InstanceTypeInfo: t})
		}
	}
	var lacking []string
	for _, t := range in.InstanceTypes {
		if !have[t] {
			lacking = append(lacking, string(t))
		}
	}
	if len(lacking) > 0 {
		return nil, wire.Errorf("InvalidInstanceType", "The following supplied instance types do not exist: [%s]", strings.Join(lacking, ", "))
	}
	rows, err := apply(typeFilters, in.Filters, rows)
	if err != nil {
		return nil, err
	}
	rows, next, err := page(rows, func(r row) string { return string(r.InstanceType) }, in.MaxResults, in.NextToken)
	out := &ec2.DescribeInstanceTypesOutput{NextToken: next, InstanceTypes: []types.InstanceTypeInfo{}}
	for _, r := range rows {
		out.InstanceTypes = append(out.InstanceTypes, r.InstanceTypeInfo)
	}
	return out, err
}

// DescribeInstanceTypeOfferings offers every described type in every location.
func (s *Service) DescribeInstanceTypeOfferings(ctx context.Context, in *ec2.DescribeInstanceTypeOfferingsInput) (*ec2.DescribeInstanceTypeOfferingsOutput, error) {
	r, _ := findRegion(wire.CallerFrom(ctx).Region)
	var places []string
	kind := cmp.Or(in.LocationType, types.LocationTypeRegion)
	switch kind {
	case types.LocationTypeRegion:
		places = []string{r.name}
	case types.LocationTypeAvailabilityZone:
		for _, letter := range r.zones {
			places = append(places, r.name+string(letter))
		}
	case types.LocationTypeAvailabilityZoneId:
		for i := range r.zones {
			places = append(places, r.zoneID(i))
		}
	}
	type row struct {
		types.InstanceTypeOffering
		Tags []types.Tag // offerings have none
	}
	var rows []row
	for _, t := range describedTypes() {
		for _, place := range places {
			rows = append(rows, row{InstanceTypeOffering: types.InstanceTypeOffering{InstanceType: t.InstanceType, Location: &place, LocationType: kind}})
		}
	}
	rows, err := apply(filters{{"instance-type", "InstanceType"}, {"location", "Location"}}, in.Filters, rows)
	if err != nil {
		return nil, err
	}
	key := func(r row) string { return fmt.Sprintf("%s %s", r.InstanceType, *r.Location) }
	sort.Slice(rows, func(i, j int) bool { return key(rows[i]) < key(rows[j]) })
	rows, next, err := page(rows, key, in.MaxResults, in.NextToken)
	out := &ec2.DescribeInstanceTypeOfferingsOutput{NextToken: next, InstanceTypeOfferings: []types.InstanceTypeOffering{}}
	for _, r := range rows {
		out.InstanceTypeOfferings = append(out.InstanceTypeOfferings, r.InstanceTypeOffering)
	}
	return out, err
}
