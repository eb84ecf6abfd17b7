package provenance

var (
	Repository  = repository
	WithoutUser = withoutUser
)
