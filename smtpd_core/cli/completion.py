"""Completions for three shells, made from the command table and the option table.

Each script finds the words before the cursor that are no options, and looks them up in a list
of the table's nodes: what may follow, which options go with it. The scripts never run smtpctl.
"""

from __future__ import annotations

from smtpd_core.cli import commands, grammar
from smtpd_core.cli.context import EXIT_OK
from smtpd_core.cli.help import SUMMARIES
from smtpd_core.cli.options import GROUPS, OPTIONS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from smtpd_core.cli.context import Context
    from smtpd_core.cli.options import Option

_FILES = ("PATH", "DIR")  # what the value of an option is called when it is a file

# In the scripts `place` is the words so far without options, `depth` how many they are; `ended`
# is set behind `--`, and then nothing is an option any more. `help` in front of a command is
# passed over: what follows it is completed as if it were not there.

_BASH = r"""# bash completion for smtpctl and mailq, made by `smtpctl completion bash`
_smtpctl()
{
    local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]}
    local ended= place= words= options= depth=0 i=1
    case ${COMP_WORDS[0]##*/} in mailq*) place=' mailq' depth=1 ;; esac
    while (( i < COMP_CWORD )); do
        case $ended${COMP_WORDS[i]} in
        --) ended='-- ' ;;
        @VALUED@)
            [[ ${COMP_WORDS[i+1]} == = ]] && (( i++ ))
            (( i++ )) ;;
        -[!-]*|--[!\ ]*|=) ;;
        help) (( depth )) && { place+=' help'; (( depth++ )); } ;;
        *) place+=" ${COMP_WORDS[i]}"; (( depth++ )) ;;
        esac
        (( i++ ))
    done
    if [[ $cur == = ]]; then
        cur=
    elif [[ $prev == = ]]; then
        prev=${COMP_WORDS[COMP_CWORD-2]}
    fi
    case $ended$prev in
@CHOICES@
    esac
    case "$depth:$place" in
@NODES@
    esac
    [[ $cur == -* && -z $ended ]] && words=$options
    COMPREPLY=($(compgen -W "$words" -- "$cur"))
}
_smtpctl_files()
{
    local IFS=$'\n'
    compopt -o filenames 2> /dev/null
    COMPREPLY=($(compgen -f -- "$cur"))
}
complete -F _smtpctl smtpctl smtpctl.pyz mailq"""

_ZSH = r"""#compdef smtpctl smtpctl.pyz mailq
# zsh completion for smtpctl and mailq, made by `smtpctl completion zsh`
_smtpctl()
{
    local prev=$words[CURRENT-1] ended= place=
    local -i depth=0 i=2
    local -a found options
    [[ ${words[1]:t} == mailq* ]] && place=' mailq' depth=1
    while (( i < CURRENT )); do
        case $ended$words[i] in
        (--) ended='-- ' ;;
        (@VALUED@) (( i++ )) ;;
        (-[^-]*|--[^\ ]*) ;;
        (help) (( depth )) && { place+=' help'; (( depth++ )) } ;;
        (*) place+=" $words[i]"; (( depth++ )) ;;
        esac
        (( i++ ))
    done
    if [[ -z $ended ]] && compset -P '--*='; then
        prev=${IPREFIX%=}
    fi
    case $ended$prev in
@CHOICES@
    esac
    case "$depth:$place" in
@NODES@
    esac
    if [[ $PREFIX == -* && -z $ended ]]; then
        _describe -o option options
    elif (( $#found )); then
        _describe command found
    fi
}
if [[ $funcstack[1] == _smtpctl ]]; then
    _smtpctl "$@"
else
    compdef _smtpctl smtpctl smtpctl.pyz mailq
fi"""

_FISH = r"""# fish completion for smtpctl and mailq, made by `smtpctl completion fish`
function __smtpctl_place
    set -l given (commandline -opc)
    set -l skip 0
    set -l ended 0
    set -l place
    string match -qr '(^|/)mailq[^/]*$' -- $given[1]; and set place mailq
    set -e given[1]
    for word in $given
        if test $skip = 1
            set skip 0
        else if test $ended = 1
            set -a place $word
        else if test "$word" = --
            set ended 1
        else if contains -- $word @VALUED@
            set skip 1
        else if string match -q -- '-?*' $word
            continue
        else if test "$word" != help; or test (count $place) != 0
            set -a place $word
        end
    end
    echo (count $place): $place
end
function __smtpctl_words
    switch (__smtpctl_place)
@NODES@
    end
end
function __smtpctl_towards
    set -l place (string replace -r '^\d+: ?' '' -- (__smtpctl_place))
    for command in $argv
        string match -q -- "$place*" $command; and return 0
        string match -q -- "$command*" $place; and return 0
    end
    return 1
end
for program in smtpctl smtpctl.pyz mailq
    complete -c $program -f -a '(__smtpctl_words)'
@CHOICES@
end"""


def bash(context: Context, arguments: list[str]) -> int:  # noqa: ARG001 - a handler
    """Print completions for bash."""
    choices = []
    for option in _valued():
        if option.choices:
            reply = f'COMPREPLY=($(compgen -W "{" ".join(option.choices)}" -- "$cur"))'
        else:
            reply = "_smtpctl_files" if option.metavar in _FILES else "COMPREPLY=()"
        choices.append(f"    --{option.name}) {reply}; return ;;")
    nodes = []
    for path, following, accepted in _nodes():
        words, options = " ".join(following), " ".join(accepted)
        nodes.append(f'    {_pattern(path)}) words="{words}" options="{options}" ;;')
    return _write(context, _BASH, choices, nodes, "|")


def zsh(context: Context, arguments: list[str]) -> int:  # noqa: ARG001 - a handler
    """Print completions for zsh."""
    choices = []
    for option in _valued():
        if option.choices:
            reply = f"compadd -- {' '.join(option.choices)}"
        else:
            reply = "_files" if option.metavar in _FILES else f"_message {_quote(option.help)}"
        choices.append(f"    (--{option.name}) {reply}; return ;;")
    nodes = []
    for path, following, accepted in _nodes():
        found, options = (
            " ".join(_quote(f"{word}:{about}") for word, about in offered.items())
            for offered in (following, accepted)
        )
        nodes.append(f"    ({_pattern(path)}) found=({found}) options=({options}) ;;")
    return _write(context, _ZSH, choices, nodes, "|")


def fish(context: Context, arguments: list[str]) -> int:  # noqa: ARG001 - a handler
    """Print completions for fish."""
    nodes = []
    for path, following, _ in _nodes():
        place = "".join(" *" if word[0] == "<" else f" {word}" for word in path)
        lines = " ".join(_quote(f"{word}\t{about}") for word, about in following.items())
        if lines:
            nodes.append(f"    case '{len(path)}:{place}'\n        printf '%s\\n' {lines}")
    choices = []
    for option in OPTIONS.values():
        line = f"    complete -c $program -l {option.name} -d {_quote(option.help)}"
        if option.group in GROUPS:
            takers = " ".join(f"'{taker}'" for taker in GROUPS[option.group])
            line += f' -n "__smtpctl_towards {takers}"'
        if option.metavar:
            values = f" -x -a {_quote(' '.join(option.choices))}" if option.choices else " -x"
            line += " -r -F" if option.metavar in _FILES else values
        choices.append(line)
    return _write(context, _FISH, choices, nodes, " ")


def _write(context: Context, script: str, choices: list[str], nodes: list[str], bar: str) -> int:
    names = bar.join(f"--{option.name}" for option in _valued())
    script = script.replace("@VALUED@", names)
    script = script.replace("@CHOICES@", "\n".join(choices)).replace("@NODES@", "\n".join(nodes))
    for line in script.split("\n"):
        context.output.line(line)
    return EXIT_OK


def _valued() -> list[Option]:
    return [option for option in OPTIONS.values() if option.metavar]


def _nodes() -> Iterator[tuple[tuple[str, ...], dict[str, str], dict[str, str]]]:
    """Give each place in the grammar: its path, the words and the options it offers, explained."""
    patterns = [tuple(pattern.split()) for pattern, _ in commands.COMMANDS]
    paths = dict.fromkeys(words[:depth] for words in patterns for depth in range(len(words) + 1))
    for path in paths:
        depth = len(path)
        below = [words for words in patterns if words[:depth] == path]
        following: dict[str, str] = {}
        for words in below:
            child = words[depth] if len(words) > depth else ""
            if child == "<str>":
                following.update(dict.fromkeys(commands.KEYWORDS.get(words[0], ()), ""))
            elif child[:1] not in ("", "<", "."):
                following[child] = _about(patterns, (*path, child))
        keys = {grammar.key(words) for words in below}
        accepted = {
            f"--{option.name}": option.help
            for option in OPTIONS.values()
            if any(option.belongs_to(key) for key in keys)
        }
        if path[-1:] != ("...",):
            yield path, following, accepted


def _about(patterns: list[tuple[str, ...]], path: tuple[str, ...]) -> str:
    """Explain a word by what its command does, or else by the words that may follow it."""
    name = grammar.key(path)
    if name in SUMMARIES:
        return SUMMARIES[name]
    depth = len(path)
    following = (words[depth] for words in patterns if words[:depth] == path)
    return ", ".join(dict.fromkeys(following))


def _pattern(path: tuple[str, ...]) -> str:
    """Spell a path for the `case` of a shell: a parameter stands for any one word."""
    spelled = "".join(' "*"' if word[0] == "<" else f" {word}" for word in path)
    return f'"{len(path)}:{spelled}"'


def _quote(text: str) -> str:
    """Quote for any of the shells; no text of ours holds a quote and a backslash at once."""
    return "'" + text.replace("'", "'\\''") + "'"
