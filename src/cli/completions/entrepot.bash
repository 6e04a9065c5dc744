# bash completion of entrepot: it asks the program, which knows its images.

_entrepot() {
    local line=${COMP_LINE:0:COMP_POINT} candidate
    local -a words
    COMPREPLY=()
    # Not COMP_WORDS: bash takes the ":" in a name for the end of a word.
    read -ra words <<<"$line"
    [[ $line == *[[:space:]] ]] && words+=("")
    local word=${words[${#words[@]} - 1]} behind_colon=""
    [[ $COMP_WORDBREAKS == *:* && $word == *:* ]] && behind_colon=${word%:*}:
    [[ $COMP_WORDBREAKS == *=* && $word == --*=* && -z $behind_colon ]] && behind_colon=${word%%=*}=
    while IFS=$'\t' read -r candidate _; do
        if [[ $candidate == :files ]]; then
            compopt -o default 2>/dev/null
            COMPREPLY=()
            return
        fi
        COMPREPLY+=("${candidate#"$behind_colon"}")
    done < <("${words[0]}" __complete -- "${words[@]:1}" 2>/dev/null)
}

complete -F _entrepot entrepot
