package ssh

// ScriptMark is the first output of bake's scripts.
const ScriptMark = scriptMark
