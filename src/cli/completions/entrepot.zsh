#compdef entrepot
# zsh completion of entrepot: it asks the program, which knows its images.

_entrepot() {
    local -a candidates
    local line text about
    while IFS=$'\t' read -r text about; do
        if [[ $text == :files ]]; then
            _files
            return
        fi
        # In a description list ":" ends the text.
        candidates+=("${text//:/\\:}${about:+:$about}")
    done < <("${(Q)words[1]}" __complete -- "${(@Q)words[2,CURRENT]}" 2>/dev/null)
    (( ${#candidates} )) && _describe -V 'entrepot' candidates
}

if [[ $funcstack[1] == _entrepot ]]; then
    _entrepot "$@"
else
    compdef _entrepot entrepot
fi
