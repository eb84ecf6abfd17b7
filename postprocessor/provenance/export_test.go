package provenance

var Repository = repository
