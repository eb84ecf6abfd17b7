package ssh

// ScriptMark is what our scripts print first.
const ScriptMark = scriptMark
