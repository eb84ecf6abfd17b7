package lang

// Scope computes the values that a template's expressions refer to.
type Scope struct{}
